"""How far the energy of an atom reaches: over how many edges, one after another."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.models import Model
from geoeq.simulate.engines.graph_inputs import graph_inputs

__all__ = ["interaction_range"]

#: Atoms of the chain, and the distance of neighbours in it in cutoffs: each sees the next one alone.
_ATOMS, _SPACING = 24, 0.6


def interaction_range(atomic_energies: Callable[..., Tensor], model: Model) -> float:
    """The cutoff times the number of edges over which the energy of an atom depends on others, in Å.

    It is measured on a chain of atoms, with the weights that the model has: the energy of the first atom is
    differentiated by the positions of all. What reaches the end of the chain is taken to have no range.

    Args:
        atomic_energies: from the tensors of ``GraphInputs`` to [N].
        model: with a cutoff.

    Returns:
        Infinity for a model that looks at whole structures.
    """
    cutoff = model.cutoff
    if cutoff is None:
        return math.inf
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    positions = 0.1 * cutoff * torch.rand(_ATOMS, 3, generator=generator, dtype=torch.float64)
    positions[:, 0] += _SPACING * cutoff * torch.arange(_ATOMS)
    known = torch.tensor(model.elements or (1, 6, 7, 8, 16))
    data = Data(z=known[torch.arange(_ATOMS) % len(known)], pos=positions).to(device)
    inputs = graph_inputs(data, cutoff)
    moved = inputs.positions.requires_grad_()
    first = atomic_energies(*inputs._replace(positions=moved))[0]
    if not first.requires_grad:
        return 0.0
    gradient = torch.autograd.grad(first, moved, materialize_grads=True, allow_unused=True)[0]
    reached = gradient.abs().sum(1).nonzero().squeeze(1)
    edges = int(reached.max()) if len(reached) else 0
    return math.inf if edges == _ATOMS - 1 else edges * cutoff
