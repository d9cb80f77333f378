"""Checks that compare a candidate with itself: symmetries, copies, precisions, and structures that are special."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.fields import field as known_field
from geoeq.geometry.groups import Symmetry, Turns, named_output, relative_error, symmetries_of
from geoeq.symmetry.equivariance import equivariance_errors
from geoeq.symmetry.probe_structures import axis_structures, degenerate_structures, doubled
from geoeq.symmetry.subject import Candidate, Outputs

__all__ = [
    "Measured",
    "axis_edges",
    "continuity",
    "degenerate_frames",
    "precision",
    "size_extensivity",
    "symmetry",
]

#: group elements for each symmetry.
SAMPLES = 3
#: by how much atoms are moved to see whether outputs are continuous, in Å.
NUDGE = 1e-6
#: an error that grows by more than this from float64 to float32 is round-off (the precisions differ by 5e8).
ROUND_OFF = 1e4


@dataclass(frozen=True)
class Measured:
    """What a check found: the error of each output, and a remark."""

    errors: dict[str, float]
    detail: str = field(default="")


def symmetry(name: Symmetry, candidate: Candidate, seed: int) -> Measured | str:
    """The error of one symmetry, on every batch of structures."""
    if name not in symmetries_of(candidate.group):
        return f"it does not claim {name}s: its group is {candidate.group}"
    if name == "batch" and candidate.calculator:
        return "a calculator of ASE takes one structure at a time"
    return Measured(_errors(candidate.function, candidate.batches, (name,), seed, candidate.turns))


def axis_edges(candidate: Candidate, seed: int) -> Measured | str:
    """Rotations of structures whose edges lie along the axes, with derivatives."""
    return _special(candidate, axis_structures, seed)


def degenerate_frames(candidate: Candidate, seed: int) -> Measured | str:
    """Rotations of linear, planar and symmetric molecules, with derivatives."""
    return _special(candidate, degenerate_structures, seed)


def _special(candidate: Candidate, make: partial[Batch] | object, seed: int) -> Measured | str:
    if "rotation" not in symmetries_of(candidate.group):
        return f"it does not claim rotations: its group is {candidate.group}"
    batch = make(candidate.batches[0])  # type: ignore[operator]
    function: Outputs = candidate.with_derivatives  # type: ignore[assignment]
    return Measured(_errors(function, (batch,), ("rotation",), seed, candidate.turns))


def continuity(candidate: Candidate, seed: int) -> Measured | str:
    """By how much outputs of nearly degenerate structures change as atoms move by a millionth of an Å."""
    batch = degenerate_structures(candidate.batches[0])
    nudge = NUDGE if candidate.precision == torch.float64 else 1e-4
    generator = torch.Generator().manual_seed(seed)
    moved = batch.clone()
    moved.pos = batch.pos + nudge * torch.randn(batch.pos.shape, generator=generator).to(batch.pos)
    with torch.no_grad():
        before, after = candidate.function(batch), candidate.function(moved)
    return Measured({name: relative_error(after[name], value) for name, value in before.items()})


def _errors(
    function: Outputs, batches: tuple[Batch, ...], symmetries: tuple[Symmetry, ...], seed: int, turns: Turns
) -> dict[str, float]:
    found: dict[str, float] = {}
    for batch in batches:
        where = " (periodic)" if "cell" in batch else ""
        errors = equivariance_errors(function, batch, symmetries=symmetries, samples=SAMPLES, seed=seed, turns=turns)
        for (_, name), error in errors.items():
            found[name + where] = max(error, found.get(name + where, 0.0))
    return found


def size_extensivity(candidate: Candidate, seed: int) -> Measured | str:
    """Two copies far apart have twice the energy, and what belongs to an atom is the same in both."""
    if candidate.complete:
        return "it has no cutoff: all atoms of a structure see each other, however far apart"
    errors: dict[str, float] = {}
    distance = 50.0 + 2 * (candidate.cutoff or 0.0)
    for batch in candidate.batches:
        where = " (supercell)" if "cell" in batch else ""
        twice = doubled(batch, distance)
        with torch.no_grad():
            once, found = candidate.function(batch), candidate.function(twice)
        for name, value in once.items():
            known = known_field(name)
            if known.level == "graph" and known.extensive:
                errors[name + where] = relative_error(found[name], 2 * value)
            elif known.level == "node" and not known.translates:
                errors[name + where] = relative_error(found[name], _twice(value, batch))
            elif name == "stress" and where:
                errors[name + where] = relative_error(found[name], value)
    return Measured(errors) if errors else "no output grows with the number of atoms or belongs to an atom"


def _twice(value: Tensor, batch: Batch) -> Tensor:
    """The rows of each graph two times, [2 N, ..]."""
    return torch.cat([part for rows in value.split(batch.ptr.diff().tolist()) for part in (rows, rows)])


def precision(candidate: Candidate, seed: int) -> Measured | str:
    """float32 against float64, and whether errors of symmetries are round-off: whether they grow as round-off does."""
    if candidate.calculator:
        return "a calculator of ASE has one precision"
    if candidate.single is None:
        return "it does not work in float64"
    if candidate.precision == torch.float32:
        return "it computes in float32 also where it is given float64, so that a bug cannot be told from round-off"
    batch = candidate.batches[0]
    single = batch.clone()
    for key, value in batch.to_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point():
            single[key] = value.float()
    with torch.no_grad():
        exact, rounded = candidate.function(batch), candidate.single(single)
    errors = {
        name: relative_error(named_output(name, rounded[name].double()).value, named_output(name, value).value)
        for name, value in exact.items()
    }
    verdicts = []
    for name in _symmetries(candidate):
        double = max(_errors(candidate.function, (batch,), (name,), seed, candidate.turns).values())
        float_ = max(_errors(candidate.single, (single,), (name,), seed, candidate.turns).values())
        verdict = _verdict(double, float_, candidate.symmetric_to)
        verdicts.append(f"{name} {double:.0e} in float64, {float_:.0e} in float32: {verdict}")
    return Measured(errors, "; ".join(verdicts))


def _symmetries(candidate: Candidate) -> tuple[Symmetry, ...]:
    return tuple(name for name in symmetries_of(candidate.group) if name != "batch")


def _verdict(double: float, single: float, stated: float) -> str:
    if double <= 1e-9:
        return "round-off"
    if double <= stated:
        return "within the error that it states"
    return "mostly round-off" if single > ROUND_OFF * double else "a bug, not round-off"
