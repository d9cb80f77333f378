"""Whether a model uses the net charge of a structure, measured on its outputs."""

from __future__ import annotations

import copy

import torch
from torch_geometric.data import Data

from geoeq.models.model import Model

__all__ = ["ignored_charge"]


def ignored_charge(model: Model, data: Data) -> str | None:
    """Return a sentence if the structures have a net charge that changes no output of the model; None otherwise.

    A model may use the charge in any of its parts, so the outputs are compared with those of neutral structures.

    Args:
        model: a model in evaluation mode.
        data: Data or Batch on its device; evaluated twice if it has a net charge.
    """
    charges = data.get("total_charge")
    if charges is None or not bool((charges != 0).any()):
        return None
    neutral = copy.copy(data)
    neutral.total_charge = torch.zeros_like(charges)
    with torch.no_grad():
        ours, others = model(data), model(neutral)
    if any(not torch.equal(ours[name], others[name]) for name in ours):
        return None
    return (
        f"the net charge of {float(charges[charges != 0][0]):+g} e has no effect: this model does not use net charges, "
        "so ions, radicals and neutral molecules of one geometry get the same values."
    )
