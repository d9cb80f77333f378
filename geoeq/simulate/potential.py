"""What every engine starts from: a trained model that gives an energy and its derivatives, ready to be evaluated."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from geoeq.errors import InputError
from geoeq.models import Ensemble, Forces, Model
from geoeq.models.checkpoint import load_checkpoint
from geoeq.simulate.engines.exported import ExportedPotential, load_potential

__all__ = ["as_potential", "energies_within"]


def as_potential(
    model: str | Path | Model,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    stress: bool | None = None,
    trust: bool = False,
) -> Model:
    """A model of its own for an engine: in evaluation mode, without gradients of parameters.

    One that gives an energy and no forces gets those that are derivatives of its energy. Of an ensemble each member
    does, so that their spread is known.

    What was exported is taken as it is: it has one device and one dtype.

    Args:
        model: a run of ``geoeq train``, a checkpoint, a file of ``export_potential``, or a Model, which is copied.
        device: "auto" (a GPU where there is one), "cpu", "cuda" ...
        dtype: of the model; None leaves it.
        stress: give a stress too; None where the model has a cutoff.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Raises:
        CheckpointError: the checkpoint or file cannot be read.
        InputError: what was exported is for another device or dtype, or has no stress.
    """
    if not isinstance(model, Model) and Path(model).suffix == ".pt2":
        model = load_potential(model)
    if isinstance(model, ExportedPotential):
        return _as_exported(model, device, dtype, stress)
    loaded = copy.deepcopy(model) if isinstance(model, Model) else load_checkpoint(model, trust=trust)[0]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if "energy" in loaded.fields and loaded.conservative:
        loaded = _with_forces(loaded, loaded.cutoff is not None if stress is None else stress)
    return loaded.to(device=device, dtype=dtype).eval().requires_grad_(False)


def energies_within(potential: Model) -> Model | None:
    """What gives the energies of which a potential takes the derivatives; None where forces are given directly."""
    if isinstance(potential, Forces):
        return potential.model  # type: ignore[return-value]
    if not isinstance(potential, Ensemble):
        return None
    within = [energies_within(member) for member in potential.models]
    members = [member for member in within if member is not None]
    if len(members) < len(within):
        return None
    known = {name: factor for name, factor in potential.factors.items() if name not in ("forces", "stress")}
    return Ensemble(members, known)


def _with_forces(model: Model, stress: bool) -> Model:
    inner = model.model if isinstance(model, Forces) else model
    if isinstance(inner, Ensemble):
        return Ensemble([_with_forces(member, stress) for member in inner.models], inner.factors)
    return Forces(inner, stress=stress)


def _as_exported(
    potential: ExportedPotential, device: str | torch.device, dtype: torch.dtype | None, stress: bool | None
) -> ExportedPotential:
    parameter = next(potential.parameters())
    wrong = device != "auto" and torch.device(device).type != parameter.device.type
    if wrong or dtype not in (None, parameter.dtype):
        raise InputError(
            f"This potential was exported for {parameter.device.type} in {parameter.dtype}, and neither can be "
            "changed: export it again, or take the checkpoint."
        )
    if stress and not potential.stress:
        raise InputError("This potential was exported without a stress.")
    potential = copy.copy(potential)
    potential.stress = potential.stress and stress is not False
    return potential
