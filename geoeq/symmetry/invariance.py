"""Compare a subject with itself: symmetries, copies, precisions and special structures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.fields import field as known_field
from geoeq.geometry.groups import Output, Symmetry, Turns, named_output, relative_error, symmetries_of
from geoeq.symmetry.equivariance import equivariance_errors
from geoeq.symmetry.probe_structures import (
    axis_structures,
    beside_the_next,
    degenerate_structures,
    doubled,
    moved_by_lattice_vectors,
    wrapped,
)
from geoeq.symmetry.subject import Outputs, Subject

__all__ = [
    "Measured",
    "axis_edges",
    "continuity",
    "degenerate_frames",
    "periodic_images",
    "precision",
    "size_extensivity",
    "symmetry",
    "wrapping",
]

#: Number of group elements per symmetry.
SAMPLES = 3
#: Displacement of atoms in the check of continuity, in Å.
NUDGE = 1e-6
#: An error that grows by more than this factor from float64 to float32 is round-off (the precisions differ by 5e8).
ROUND_OFF = 1e4


@dataclass(frozen=True)
class Measured:
    """Result of a check: the error of each output, and a remark."""

    errors: dict[str, float]
    detail: str = field(default="")


def symmetry(name: Symmetry, subject: Subject, seed: int) -> Measured | str:
    """Measure the error of one symmetry on every batch of structures."""
    if name not in symmetries_of(subject.group):
        return f"it does not claim {name}s: its group is {subject.group}"
    if name == "batch" and subject.calculator:
        return "an ASE calculator takes one structure at a time"
    return Measured(_errors(subject.function, subject.batches, (name,), seed, subject.turns))


def axis_edges(subject: Subject, seed: int) -> Measured | str:
    """Rotate structures with edges along the axes; derivatives are included."""
    return _special(subject, axis_structures, seed)


def degenerate_frames(subject: Subject, seed: int) -> Measured | str:
    """Rotate linear, planar and symmetric molecules; derivatives are included."""
    return _special(subject, degenerate_structures, seed)


def _special(subject: Subject, make: partial[Batch] | object, seed: int) -> Measured | str:
    if "rotation" not in symmetries_of(subject.group):
        return f"it does not claim rotations: its group is {subject.group}"
    batch = make(subject.batches[0])  # type: ignore[operator]
    function: Outputs = subject.with_derivatives  # type: ignore[assignment]
    return Measured(_errors(function, (batch,), ("rotation",), seed, subject.turns))


def continuity(subject: Subject, seed: int) -> Measured | str:
    """Measure the change of outputs of nearly degenerate structures as atoms move by a millionth of an Å."""
    batch = degenerate_structures(subject.batches[0])
    nudge = NUDGE if subject.precision == torch.float64 else 1e-4
    generator = torch.Generator().manual_seed(seed)
    moved = batch.clone()
    moved.pos = batch.pos + nudge * torch.randn(batch.pos.shape, generator=generator).to(batch.pos)
    with torch.no_grad():
        before, after = subject.function(batch), subject.function(moved)
    return Measured({name: relative_error(after[name], value) for name, value in before.items()})


def _errors(
    function: Outputs, batches: tuple[Batch, ...], symmetries: tuple[Symmetry, ...], seed: int, turns: Turns
) -> dict[str, float]:
    largest: dict[str, float] = {}
    for batch in batches:
        where = " (periodic)" if "cell" in batch else ""
        errors = equivariance_errors(function, batch, symmetries=symmetries, samples=SAMPLES, seed=seed, turns=turns)
        for (_, name), error in errors.items():
            largest[name + where] = max(error, largest.get(name + where, 0.0))
    return largest


def periodic_images(subject: Subject, seed: int) -> Measured | str:
    """Move one atom of each crystal by a lattice vector; derivatives are included."""
    return _images(subject, moved_by_lattice_vectors, seed)


def wrapping(subject: Subject, seed: int) -> Measured | str:
    """Shift crystals and bring all their atoms back into the cell; derivatives are included."""
    return _images(subject, wrapped, seed)


def _images(subject: Subject, move: Callable[[Batch, int], Batch], seed: int) -> Measured | str:
    periodic = [batch for batch in subject.batches if "cell" in batch and bool(batch.pbc.any())]
    if not periodic:
        return "it is not tested on periodic structures"
    errors: dict[str, float] = {}
    for batch in periodic:
        moved = move(batch, seed)
        before, after = _relative(subject, batch), _relative(subject, moved)
        for name, value in before.items():
            errors[name] = max(relative_error(after[name], value), errors.get(name, 0.0))
    return Measured(errors)


def _relative(subject: Subject, batch: Batch) -> dict[str, Tensor]:
    """Return outputs and derivatives; those that translate are relative to the position of their atom."""
    values = {}
    for name, output in subject.with_derivatives(batch).items():
        value = output.value if isinstance(output, Output) else output
        translates = not name.startswith("d ") and known_field(name).translates and known_field(name).level == "node"
        values[name] = value.detach() - batch.pos if translates else value.detach()
    return values


def size_extensivity(subject: Subject, seed: int) -> Measured | str:
    """Check that energies of structures far apart add up, and that two copies have equal atomic properties."""
    if subject.complete:
        return "it has no cutoff: all atoms of a structure interact, however far apart"
    errors: dict[str, float] = {}
    distance = 50.0 + 2 * (subject.cutoff or 0.0)
    for batch in subject.batches:
        where = " (supercell)" if "cell" in batch else ""
        twice = doubled(batch, distance)
        with torch.no_grad():
            once, both = subject.function(batch), subject.function(twice)
        for name, value in once.items():
            known = known_field(name)
            if known.level == "graph" and known.extensive:
                errors[name + where] = relative_error(both[name], 2 * value)
            elif known.level == "node" and not known.translates:
                errors[name + where] = relative_error(both[name], _twice(value, batch))
            elif name == "stress" and where:
                errors[name + where] = relative_error(both[name], value)
        if not where and batch.num_graphs > 1:  # of two copies, a mean over all atoms is that of one
            with torch.no_grad():
                pairs = subject.function(beside_the_next(batch, distance))
            for name, value in once.items():
                if name in errors and known_field(name).level == "graph":
                    error = relative_error(pairs[name], value + value.roll(-1, 0))
                    errors[name] = max(error, errors[name])
    return Measured(errors) if errors else "it has no extensive or atomic output"


def _twice(value: Tensor, batch: Batch) -> Tensor:
    """Repeat the rows of each graph, [2 N, ..]."""
    return torch.cat([part for rows in value.split(batch.ptr.diff().tolist()) for part in (rows, rows)])


def precision(subject: Subject, seed: int) -> Measured | str:
    """Compare float32 with float64, and decide whether symmetry errors are round-off: whether they grow like it."""
    if subject.calculator:
        return "an ASE calculator has one precision"
    if subject.single is None:
        return "it does not work in float64"
    if subject.precision == torch.float32:
        return "it computes in float32 even on float64 inputs, so that a bug cannot be distinguished from round-off"
    batch = subject.batches[0]
    single = batch.clone()
    for key, value in batch.to_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point():
            single[key] = value.float()
    with torch.no_grad():
        exact, rounded = subject.function(batch), subject.single(single)
    errors = {
        name: relative_error(named_output(name, rounded[name].double()).value, named_output(name, value).value)
        for name, value in exact.items()
    }
    verdicts = []
    for name in _symmetries(subject):
        double = max(_errors(subject.function, (batch,), (name,), seed, subject.turns).values())
        float_ = max(_errors(subject.single, (single,), (name,), seed, subject.turns).values())
        verdict = _verdict(double, float_, subject.symmetric_to)
        verdicts.append(f"{name} {double:.0e} in float64, {float_:.0e} in float32: {verdict}")
    return Measured(errors, "; ".join(verdicts))


def _symmetries(subject: Subject) -> tuple[Symmetry, ...]:
    return tuple(name for name in symmetries_of(subject.group) if name != "batch")


def _verdict(double: float, single: float, stated: float) -> str:
    if double <= 1e-9:
        return "round-off"
    if double <= stated:
        return "within its stated error"
    return "mostly round-off" if single > ROUND_OFF * double else "a bug, not round-off"
