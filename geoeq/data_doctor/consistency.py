"""Are the forces minus the derivative of the energies, and the stresses their derivative by strain?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from geoeq.data_doctor.findings import Finding, finding
from geoeq.data_doctor.pairs import Pairs, close_pairs
from geoeq.data_doctor.statistics import Line, line_through_origin
from geoeq.data_doctor.survey import Chart
from geoeq.data_doctor.unit_guess import explain, misreadings

__all__ = ["check_consistency"]

Values = NDArray[np.float64]

#: A line says something if it goes through so many pairs, and its slope is certain up to this factor.
_FEWEST, _CERTAIN = 8, 1.5

#: Slopes up to this factor from 1 are in order: frames are not infinitely close.
_IN_ORDER = 1.3

#: Slopes further than this from 1 are of another unit; those between need a line as sharp as this to be told of.
_GROSS, _SHARP = 2.5, 1.03

#: Displacements beyond which the trapezium rule says little, Å.
_FAR = 0.6

_MENDING = "Correct the unit or the sign in the card (a key '-name' is the opposite of 'name')."

_SHEARS = ("yz", "xz", "xy")


def check_consistency(chart: Chart) -> Iterator[Finding]:
    """Compare differences of energies between close structures with the work of forces and stresses."""
    energies = [name for name in chart.energies if np.isfinite(chart.target(name)).all()]
    if "forces" not in chart.targets or "forces" not in chart.dataset.targets or not energies:
        return
    pairs = close_pairs(chart)
    for name in energies:
        values = chart.dataset.targets[name]
        change = np.asarray(values[pairs.second] - values[pairs.first], dtype=np.float64).reshape(-1)
        yield from _of_forces(chart, name, pairs, change)
        if "stress" in chart.targets and "stress" in chart.dataset.targets:
            yield from _of_stress(chart, name, pairs, change)


def _of_forces(chart: Chart, name: str, pairs: Pairs, change: Values) -> Iterator[Finding]:
    check = "energy and forces"
    use = ~pairs.strained & (pairs.moved < _FAR)
    scale = pairs.bend[use] + 1e-3 * np.abs(pairs.work[use]) + 1e-9  # so that all pairs are about as uncertain
    line = line_through_origin(-pairs.work[use] / scale, change[use] / scale)
    away = abs(math.log(abs(line.slope))) if line.points else 0.0
    doubtful = line.slope > 0 and math.log(_IN_ORDER) < away < math.log(_GROSS) and line.factor > _SHARP
    if line.points < _FEWEST or line.factor > _CERTAIN or doubtful:
        yield finding(check, "note", f"Whether forces are the derivative of '{name}' cannot be said: {_too_few(line)}.")
        return
    text = (
        f"Between {line.points} pairs of close structures '{name}' changes by {line.slope:.3g} times the work of the "
        f"forces (certain up to a factor of {line.factor:.2f})"
    )
    if away < math.log(_IN_ORDER) and line.slope > 0:
        yield finding(check, "note", f"{text}: they are consistent.")
        return
    atoms = float(np.median(pairs.atoms))
    causes = _with_sign(
        {
            **misreadings(chart.dataset, name),
            **{cause: 1 / factor for cause, factor in misreadings(chart.dataset, "forces").items()},
            f"'{name}' is for each atom": 1 / atoms,
            "energies in Ha and forces in Ha/Bohr are read as eV and eV/Å": 1.8897,
            "positions are in Bohr, and read as Å": 1.8897,
            "": 1.0,
        },
        "forces",
        "gradients",
    )
    gross = line.slope < 0 or away > math.log(_GROSS)
    yield finding(
        check, "error" if gross else "warning", f"{text}; 1 would be right{_because(line, causes)}.", _MENDING
    )


def _of_stress(chart: Chart, name: str, pairs: Pairs, change: Values) -> Iterator[Finding]:
    check = "energy and stress"
    use = pairs.strained & (pairs.moved < _FAR)
    ends = [chart.dataset.targets["stress"][places].astype(np.float64) for places in (pairs.first, pairs.second)]
    middle = 0.5 * (ends[0] + ends[1]).reshape(-1, 3, 3)[use]  # [P, 3, 3]
    strain, volume = pairs.strain[use], pairs.volume[use]
    rest = (change + pairs.work)[use]  # of the energy, that is due to the strain
    axial = volume * np.einsum("pii,pii->p", middle, strain)
    shear = 2 * volume[:, None] * np.stack([middle[:, i, j] * strain[:, i, j] for i, j in ((1, 2), (0, 2), (0, 1))], 1)
    line = line_through_origin(axial + shear.sum(1), rest)
    straight = np.abs(strain[:, range(3), range(3)]).max(1, initial=0) > 3 * np.abs(
        strain[:, [1, 0, 0], [2, 2, 1]]
    ).max(1, initial=0)
    if line.points >= _FEWEST and line.factor > 1.05 and straight.sum() >= 4:
        axial_line = line_through_origin((axial + shear.sum(1))[straight], rest[straight])
        if axial_line.factor < line.factor:
            line = axial_line
    if line.points < 4 or line.factor > _CERTAIN:
        yield finding(check, "note", f"Whether stress is the derivative of '{name}' cannot be said: {_too_few(line)}.")
        return
    text = (
        f"Between {line.points} pairs of strained structures '{name}' changes by {line.slope:.3g} times the work of "
        f"the stress (certain up to a factor of {line.factor:.2f})"
    )
    if abs(math.log(abs(line.slope))) < math.log(_IN_ORDER) and line.slope > 0:
        yield finding(check, "note", f"{text}: unit and sign of the stress are right.")
    else:
        size = float(np.median(volume))
        read = {cause: 1 / factor for cause, factor in misreadings(chart.dataset, "stress").items()}
        told = chart.dataset.card.targets["stress"]
        causes = _with_sign(
            {**read, "it is a virial, not divided by the volume": 1 / size / told.to_internal("stress"), "": 1.0},
            "stress",
            "pressures (ASE's stress is negative under pressure)",
        )
        yield finding(check, "error", f"{text}; 1 would be right{_because(line, causes)}.", _MENDING)
    yield from _order(middle, strain, volume, rest - line.slope * axial, line.slope)


def _order(middle: Values, strain: Values, volume: Values, rest: Values, slope: float) -> Iterator[Finding]:
    """Which order of the three shears explains what the diagonal leaves of the energy."""
    check = "order of the stress"
    places = ((1, 2), (0, 2), (0, 1))
    shears = np.stack([strain[:, i, j] for i, j in places], 1)
    largest = np.abs(shears).max(1, initial=0)
    use = largest > 3 * np.abs(strain[:, range(3), range(3)]).max(1, initial=0)
    if use.sum() < 4 or len(np.unique(np.abs(shears[use]).argmax(1))) < 2:
        return
    stresses = np.stack([middle[:, i, j] for i, j in places], 1)
    left = {}
    for order in itertools.permutations(range(3)):
        work = 2 * slope * volume * (stresses[:, order] * shears).sum(1)
        left[order] = float(np.median(np.abs(rest - work)[use]))
    best = min(left, key=lambda order: left[order])
    if best == (0, 1, 2) or left[best] > 0.3 * left[0, 1, 2]:
        yield finding(
            check, "note", f"The order of its shears is right, as {int(use.sum())} pairs of sheared cells say."
        )
        return
    named = ", ".join(
        f"what is read as {_SHEARS[source]} is {_SHEARS[place]}"
        for source, place in sorted(zip(best, range(3)))
        if source != place
    )
    yield finding(
        check,
        "error",
        f"The shears of the stress are in another order: {named}, as {int(use.sum())} pairs of sheared cells say.",
        "Say the order in the card, as in 'options: {order: vasp}'.",
    )


def _with_sign(causes: Mapping[str, float], kind: str, opposite: str) -> dict[str, float]:
    turned = {
        f"{cause}{' and ' if cause else ''}the {kind} are {opposite}": -factor for cause, factor in causes.items()
    }
    return {cause: factor for cause, factor in {**causes, **turned}.items() if cause}


def _because(line: Line, causes: Mapping[str, float]) -> str:
    found = explain(line.slope, line.factor, causes)
    return f", as if {', or '.join(found[:3])}" if found else ""


def _too_few(line: Line) -> str:
    if line.points < 4:
        return f"there are {line.points} pairs of close structures"
    return f"energies and work of {line.points} pairs are on no line, as their structures are not close"
