"""Check that nothing jumps as an atom moves away, at the cutoff or elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.geometry.groups import Output
from geoeq.symmetry.invariance import Measured
from geoeq.symmetry.probe_structures import moving_atom
from geoeq.symmetry.subject import Subject

__all__ = ["smoothness"]

#: Start of the path, its end if no cutoff is known, and its step, in Å.
START, END, STEP = 1.5, 8.0, 0.04
#: Number of times an interval is halved, to about 1e-6 Å.
HALVINGS = 15
#: Number of most suspicious intervals examined per output.
SUSPECTS = 4


def smoothness(subject: Subject, seed: int) -> Measured | str:
    """Measure the largest jump of outputs and derivatives as an atom leaves, relative to their change on the path.

    The intervals whose change differs most from that of their neighbours, and the one at the cutoff, are halved until
    the remaining change cannot be a slope.
    """
    if subject.complete:
        return "it has no cutoff"
    end = END if subject.cutoff is None else subject.cutoff + 0.5
    path = torch.arange(START, end, STEP, dtype=torch.float64)
    values = _values(subject, path)
    errors, positions, starts = {}, {}, {}
    for name, value in values.items():  # [S, M]
        bad = ~value.isfinite().all(-1)
        if bad.any():
            errors[name], positions[name] = float("inf"), float(path[bad][0])
            continue
        change = value.diff(dim=0)  # [S - 1, M]
        odd = (change[1:-1] - (change[:-2] + change[2:]) / 2).norm(dim=-1)
        starts[name] = path[odd.topk(min(SUSPECTS, len(odd))).indices + 1]
        if subject.cutoff is not None:
            starts[name] = torch.cat([starts[name], path.new_tensor([subject.cutoff - STEP / 3])])
    for name, (jumps, where) in _jumps(subject, starts).items():
        spread = float((values[name].amax(0) - values[name].amin(0)).max())
        errors[name] = float(jumps.max()) / max(spread, 1e-6)
        positions[name] = float(where[jumps.argmax()])
    worst = max(errors, key=lambda name: errors[name])
    return Measured(errors, f"largest in {worst}, at {positions[worst]:.3f} Å")


def _jumps(subject: Subject, starts: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the jumps within the intervals that start at these distances [J], and their positions."""
    if not starts:
        return {}
    counts, names, width = [len(part) for part in starts.values()], list(starts), STEP

    def values(distances: Tensor) -> list[Tensor]:
        """Return the value of each output at its own distances, [J, M] each, from a single batch."""
        outputs = _values(subject, distances)
        rows = torch.arange(len(distances)).split(counts)
        return [outputs[name][part] for name, part in zip(names, rows)]

    left = torch.cat(list(starts.values()))
    before, after = values(left), values(left + width)
    for _ in range(HALVINGS if subject.precision == torch.float64 else HALVINGS // 2):
        width /= 2
        middle = values(left + width)
        # Continue with the half that changes more, for each output [J].
        right = [(c - b).norm(dim=-1) > (b - a).norm(dim=-1) for a, b, c in zip(before, middle, after)]
        before = [torch.where(r.unsqueeze(-1), b, a) for r, a, b in zip(right, before, middle)]
        after = [torch.where(r.unsqueeze(-1), c, b) for r, b, c in zip(right, middle, after)]
        left = torch.where(torch.cat(right), left + width, left)
    outer = zip(values(left - width), before, after, values(left + 2 * width))
    slopes = [((a - first) + (last - b)) / 2 for first, a, b, last in outer]
    jumps = [((b - a) - slope).norm(dim=-1) for a, b, slope in zip(before, after, slopes)]
    return dict(zip(names, zip(jumps, left.split(counts))))


def _values(subject: Subject, distances: Tensor) -> dict[str, Tensor]:
    """Return outputs and derivatives at these distances [S], each flattened to [S, M]."""
    batch = moving_atom(distances, subject.batches[0])
    flattened = {}
    for name, output in subject.with_derivatives(batch).items():
        value = output.value if isinstance(output, Output) else output
        value = value - batch.pos if name == "positions" else value
        flattened[name] = value.detach().double().reshape(len(distances), -1)
    return flattened
