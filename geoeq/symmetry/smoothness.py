"""Does anything jump as an atom leaves, at the cutoff or elsewhere?"""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.symmetry.candidate import Candidate
from geoeq.symmetry.group import Output
from geoeq.symmetry.invariance import Measured
from geoeq.symmetry.structures import moving_atom

__all__ = ["smoothness"]

#: where the walk begins and, where no cutoff is known, ends; its steps; all in Å.
START, END, STEP = 1.5, 8.0, 0.04
#: how often an interval is halved: to about 1e-6 Å.
HALVINGS = 15
#: how many of the most suspicious intervals of each output are looked into.
SUSPECTS = 4


def smoothness(candidate: Candidate, seed: int) -> Measured | str:
    """The largest jump of outputs and derivatives as an atom leaves, relative to their change on the whole walk.

    Intervals whose change is most unlike that of their neighbours, and that with the cutoff, are halved until what is
    left of the change cannot be a slope.
    """
    if candidate.complete:
        return "it has no cutoff"
    end = END if candidate.cutoff is None else candidate.cutoff + 0.5
    walk = torch.arange(START, end, STEP, dtype=torch.float64)
    errors, places = {}, {}
    for name, values in _values(candidate, walk).items():  # [S, M]
        spread = float((values.amax(0) - values.amin(0)).max())
        if not values.isfinite().all():
            errors[name], places[name] = float("inf"), float(walk[~values.isfinite().all(-1)][0])
            continue
        change = values.diff(dim=0)  # [S - 1, M]
        odd = (change[1:-1] - (change[:-2] + change[2:]) / 2).norm(dim=-1)
        starts = walk[odd.topk(min(SUSPECTS, len(odd))).indices + 1]
        if candidate.cutoff is not None:
            starts = torch.cat([starts, starts.new_tensor([candidate.cutoff - STEP / 3])])
        jumps, where = _jumps(candidate, name, starts)
        errors[name] = float(jumps.max()) / max(spread, 1e-6)
        places[name] = float(where[jumps.argmax()])
    worst = max(errors, key=lambda name: errors[name])
    return Measured(errors, f"largest in {worst}, at {places[worst]:.3f} Å")


def _jumps(candidate: Candidate, name: str, starts: Tensor) -> tuple[Tensor, Tensor]:
    """What does not vanish with the width of the intervals that begin at these distances [J], and where it is."""
    left, width = starts.clone(), STEP
    halvings = HALVINGS if candidate.precision == torch.float64 else HALVINGS // 2
    for _ in range(halvings):
        width /= 2
        a, b, c = _values(candidate, torch.cat([left, left + width, left + 2 * width]))[name].chunk(3)
        right = (c - b).norm(dim=-1) > (b - a).norm(dim=-1)
        left = torch.where(right, left + width, left)
    points = torch.cat([left - width, left, left + width, left + 2 * width])
    before, a, b, after = _values(candidate, points)[name].chunk(4)
    slope = ((a - before) + (after - b)) / 2
    return ((b - a) - slope).norm(dim=-1), left


def _values(candidate: Candidate, distances: Tensor) -> dict[str, Tensor]:
    """Outputs and derivatives of the structures at these distances [S], each flattened to [S, M]."""
    batch = moving_atom(distances, candidate.batches[0])
    found = {}
    for name, output in candidate.with_derivatives(batch).items():
        value = output.value if isinstance(output, Output) else output
        value = value - batch.pos if name == "positions" else value
        found[name] = value.detach().double().reshape(len(distances), -1)
    return found
