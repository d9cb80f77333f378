"""Prepare a trained model for a simulation engine: energy and its derivatives, in evaluation mode."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

import geoeq
from geoeq.errors import InputError
from geoeq.models import Ensemble, Forces, Model
from geoeq.models.checkpoint import checkpoint_sha256, load_checkpoint, weights_sha256
from geoeq.simulate.engines.exported import ExportedPotential, load_potential
from geoeq.trust import Trust

__all__ = ["as_potential", "describe_potential", "energies_within"]


@torch.inference_mode(False)  # tensors of inference mode could not be used in derivatives
def as_potential(
    model: str | Path | Model,
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
    stress: bool | None = None,
    trust: Trust = False,
) -> Model:
    """Return a copy of a model for an engine, in evaluation mode and without gradients of parameters.

    A model that predicts an energy but no forces gets forces as derivatives of its energy. In an ensemble each member
    does, so that the spread of the forces is known. An exported potential has a fixed device and dtype.

    Args:
        model: folder of a ``geoeq train`` run, a checkpoint, name of a fetched published potential, a file written
            by ``export_potential``, or a Model.
        device: "auto" (a GPU if available), "cpu", "cuda" ...
        dtype: dtype of the model; None leaves it unchanged.
        stress: whether to compute the stress; None computes it if the model has a cutoff.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Raises:
        CheckpointError: the checkpoint or file cannot be read.
        InputError: the exported potential is for another device or dtype, or has no stress.
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


def describe_potential(model: str | Path | Model, potential: Model) -> dict[str, str]:
    """Return what identifies a potential in a database: title, checksum of the weights, dtype, path, version of geoeq.

    Args:
        model: what the potential was loaded from.
        potential: the result of ``as_potential``.
    """
    described = {"model": potential.title, "geoeq": geoeq.__version__}
    described["dtype"] = str(next(potential.parameters()).dtype).removeprefix("torch.")
    if isinstance(potential, ExportedPotential):
        described["sha256"] = str(potential.description["sha256"])
    else:
        described["sha256"] = weights_sha256(model) if isinstance(model, Model) else checkpoint_sha256(model)
    return described if isinstance(model, Model) else described | {"path": str(model)}


def energies_within(potential: Model) -> Model | None:
    """Return the model whose energy a potential differentiates; None if forces are predicted directly."""
    if isinstance(potential, Forces):
        return potential.model  # type: ignore[return-value]
    if not isinstance(potential, Ensemble):
        return None
    inner = [energies_within(member) for member in potential.models]
    members = [member for member in inner if member is not None]
    if len(members) < len(inner):
        return None
    factors = {name: factor for name, factor in potential.factors.items() if name not in ("forces", "stress")}
    return Ensemble(members, factors)


def _with_forces(model: Model, stress: bool) -> Model:
    inner = model.model if isinstance(model, Forces) else model
    if isinstance(inner, Ensemble):
        return Ensemble([_with_forces(member, stress) for member in inner.models], inner.factors)
    return Forces(inner, stress=stress)


def _as_exported(
    potential: ExportedPotential, device: str | torch.device, dtype: torch.dtype | None, stress: bool | None
) -> ExportedPotential:
    parameter = next(potential.parameters())
    other_device = device != "auto" and torch.device(device).type != parameter.device.type
    if other_device or dtype not in (None, parameter.dtype):
        raise InputError(
            f"This potential was exported for {parameter.device.type} in {parameter.dtype}; neither can be changed. "
            "Export it again, or use the checkpoint."
        )
    if stress and not potential.stress:
        raise InputError("This potential was exported without a stress.")
    potential = copy.copy(potential)
    potential.stress = potential.stress and stress is not False
    return potential
