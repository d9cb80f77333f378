"""Does anything jump as an atom leaves, at the cutoff or elsewhere?"""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.geometry.groups import Output
from geoeq.symmetry.invariance import Measured
from geoeq.symmetry.probe_structures import moving_atom
from geoeq.symmetry.subject import Candidate

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
    values = _values(candidate, walk)
    errors, places, starts = {}, {}, {}
    for name, value in values.items():  # [S, M]
        bad = ~value.isfinite().all(-1)
        if bad.any():
            errors[name], places[name] = float("inf"), float(walk[bad][0])
            continue
        change = value.diff(dim=0)  # [S - 1, M]
        odd = (change[1:-1] - (change[:-2] + change[2:]) / 2).norm(dim=-1)
        starts[name] = walk[odd.topk(min(SUSPECTS, len(odd))).indices + 1]
        if candidate.cutoff is not None:
            starts[name] = torch.cat([starts[name], walk.new_tensor([candidate.cutoff - STEP / 3])])
    for name, (jumps, where) in _jumps(candidate, starts).items():
        spread = float((values[name].amax(0) - values[name].amin(0)).max())
        errors[name] = float(jumps.max()) / max(spread, 1e-6)
        places[name] = float(where[jumps.argmax()])
    worst = max(errors, key=lambda name: errors[name])
    return Measured(errors, f"largest in {worst}, at {places[worst]:.3f} Å")


def _jumps(candidate: Candidate, starts: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """What does not vanish with the width of the intervals that begin at these distances [J], and where it is."""
    if not starts:
        return {}
    counts, names, width = [len(part) for part in starts.values()], list(starts), STEP

    def values(distances: Tensor) -> list[Tensor]:
        """The value of each output at its own distances, [J, M] each; all structures are one batch."""
        found = _values(candidate, distances)
        rows = torch.arange(len(distances)).split(counts)
        return [found[name][part] for name, part in zip(names, rows)]

    left = torch.cat(list(starts.values()))
    before, after = values(left), values(left + width)
    for _ in range(HALVINGS if candidate.precision == torch.float64 else HALVINGS // 2):
        width /= 2
        middle = values(left + width)
        # The half that changes more, of each output [J, 1].
        right = [(c - b).norm(dim=-1) > (b - a).norm(dim=-1) for a, b, c in zip(before, middle, after)]
        before = [torch.where(r.unsqueeze(-1), b, a) for r, a, b in zip(right, before, middle)]
        after = [torch.where(r.unsqueeze(-1), c, b) for r, b, c in zip(right, middle, after)]
        left = torch.where(torch.cat(right), left + width, left)
    outer = zip(values(left - width), before, after, values(left + 2 * width))
    slopes = [((a - first) + (last - b)) / 2 for first, a, b, last in outer]
    jumps = [((b - a) - slope).norm(dim=-1) for a, b, slope in zip(before, after, slopes)]
    return dict(zip(names, zip(jumps, left.split(counts))))


def _values(candidate: Candidate, distances: Tensor) -> dict[str, Tensor]:
    """Outputs and derivatives of the structures at these distances [S], each flattened to [S, M]."""
    batch = moving_atom(distances, candidate.batches[0])
    found = {}
    for name, output in candidate.with_derivatives(batch).items():
        value = output.value if isinstance(output, Output) else output
        value = value - batch.pos if name == "positions" else value
        found[name] = value.detach().double().reshape(len(distances), -1)
    return found
