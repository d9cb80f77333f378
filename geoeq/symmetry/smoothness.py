"""Check that nothing jumps as an atom moves: away across the cutoff, and through lines, planes and axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.geometry.groups import Output
from geoeq.symmetry.invariance import Measured
from geoeq.symmetry.probe_structures import PASSAGES, moving_atom, passing_atom
from geoeq.symmetry.subject import Subject

__all__ = ["passages", "smoothness"]

#: Start of the path across the cutoff, its end if no cutoff is known, and the step of all paths, in Å.
START, END, STEP = 1.5, 8.0, 0.04
#: Length of a passage before and after the special arrangement, in Å.
REACH = 1.0
#: Number of times an interval is halved, to about 1e-6 Å.
HALVINGS = 15
#: Number of most suspicious intervals examined per output.
SUSPECTS = 3
#: Rounding errors of fifth differences, relative to the change on the path.
NOISE = 1e-11
#: A jump by 1 between the third and fourth of six equidistant points adds this to their fifth difference.
WEIGHT = 6.0

#: Function from distances along a path, in Å, to a batch of structures of the same size.
Path = Callable[[Tensor], Batch]


def smoothness(subject: Subject, seed: int) -> Measured | str:
    """Measure the largest jump of outputs and derivatives as an atom leaves, relative to their change on the path.

    The path crosses the cutoff, and each number of neighbours that an atom may have within it.
    """
    if subject.complete:
        return "it has no cutoff"
    end = END if subject.cutoff is None else subject.cutoff + 0.5
    marks = [] if subject.cutoff is None else [subject.cutoff]
    errors, places = _jumps(subject, partial(moving_atom, like=subject.batches[0]), START, end, marks)
    worst = max(errors, key=lambda name: errors[name])
    return Measured(errors, f"largest in {worst}, at {places[worst]:.3f} Å")


def passages(subject: Subject, seed: int) -> Measured | str:
    """Measure the largest jump of outputs and derivatives as an atom passes through special arrangements.

    There, an angle is 180°, four atoms lie in one plane, or edges point along the axes.
    """
    largest: dict[str, float] = {}
    details = []
    for passage in PASSAGES:
        path = partial(passing_atom, passage, like=subject.batches[0])
        errors, places = _jumps(subject, path, -REACH, REACH + STEP / 2, [0.0])
        worst = max(errors, key=lambda name: errors[name])
        details.append((errors[worst], f"largest in {worst}, {places[worst]:+.3f} Å from {passage}"))
        largest = {name: max(error, largest.get(name, 0.0)) for name, error in errors.items()}
    return Measured(largest, max(details)[1])


def _jumps(
    subject: Subject, path: Path, start: float, end: float, marks: list[float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the largest jump of each output relative to its change on the path, and where it is.

    The most suspicious intervals, and those at the marks, are halved until the remaining change cannot be a slope.
    """
    grid = torch.arange(start, end, STEP, dtype=torch.float64)
    values = _values(subject, path(grid))
    errors, places, suspects = {}, {}, {}
    for name, value in values.items():  # [S, M]
        bad = ~value.isfinite().all(-1)
        if bad.any():
            errors[name], places[name] = float("inf"), float(grid[bad][0])
            continue
        chosen = grid[_suspicion(value).topk(min(SUSPECTS, len(value) - 5)).indices + 2]
        suspects[name] = torch.cat([chosen, grid.new_tensor(marks) - STEP / 3])
    for name, (jumps, where) in _halved(subject, path, suspects).items():
        spread = float((values[name].amax(0) - values[name].amin(0)).max())
        errors[name] = float(jumps.max()) / max(spread, 1e-6)
        places[name] = float(where[jumps.argmax()])
    return errors, places


def _suspicion(values: Tensor) -> Tensor:
    """Return fifth differences [S - 5] of a path [S, M], relative to those of intervals that are three steps away.

    They vary slowly where a function is smooth, and stand out where it jumps, however steep it is elsewhere.
    """
    odd = values.diff(n=5, dim=0).norm(dim=-1)  # [S - 5]
    beside = torch.nn.functional.pad(odd[None], (3, 3), mode="replicate")[0]
    noise = NOISE * (values - values[0]).abs().max() + 1e-300
    suspicion: Tensor = odd / (torch.maximum(beside[:-6], beside[6:]) + noise)
    return suspicion


def _halved(subject: Subject, path: Path, starts: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the jumps within the intervals that start at these distances [J], and their positions."""
    if not starts:
        return {}
    counts, names, width = [len(part) for part in starts.values()], list(starts), STEP
    left = torch.cat(list(starts.values()))  # [J], of all outputs

    def values(offsets: tuple[float, ...]) -> list[Tensor]:
        """Return each output at its own distances, shifted by the offsets, [J, K, M] each, from a single batch."""
        outputs = _values(subject, path((left.unsqueeze(1) + left.new_tensor(offsets)).flatten()))
        rows = torch.arange(len(left)).split(counts)
        return [outputs[name].unflatten(0, (len(left), -1))[part] for name, part in zip(names, rows)]

    def differences(points: Tensor) -> Tensor:
        sizes: Tensor = points.diff(n=5, dim=1).squeeze(1).norm(dim=-1)  # [J]
        return sizes

    # Six points with the suspicious interval in the middle; the half that is the less smooth becomes the next middle.
    points = values(tuple(width * k for k in range(-2, 4)))
    for _ in range(HALVINGS if subject.precision == torch.float64 else HALVINGS // 2):
        between = values((-width / 2, width / 2, 3 * width / 2))
        width /= 2
        halves = [
            torch.stack([p[:, 1], b[:, 0], p[:, 2], b[:, 1], p[:, 3], b[:, 2], p[:, 4]], 1)
            for p, b in zip(points, between)
        ]  # [J, 7, M]
        right = [differences(h[:, 1:]) > differences(h[:, :-1]) for h in halves]  # [J]
        points = [torch.where(r[:, None, None], h[:, 1:], h[:, :-1]) for r, h in zip(right, halves)]
        left = torch.where(torch.cat(right), left + width, left)
    jumps = [differences(p) / WEIGHT for p in points]
    return dict(zip(names, zip(jumps, left.split(counts))))


def _values(subject: Subject, batch: Batch) -> dict[str, Tensor]:
    """Return outputs and derivatives of S structures of the same size, each flattened to [S, M]."""
    flattened = {}
    for name, output in subject.with_derivatives(batch).items():
        value = output.value if isinstance(output, Output) else output
        value = value - batch.pos if name == "positions" else value
        flattened[name] = value.detach().double().reshape(batch.num_graphs, -1)
    return flattened
