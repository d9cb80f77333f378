"""Check that forces are minus the derivative of energies, and stresses their derivative by strain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from geoeq.data_doctor.findings import Finding, error, finding, note
from geoeq.data_doctor.pairs import Pairs, close_pairs
from geoeq.data_doctor.robust import Line, line_through_origin
from geoeq.data_doctor.statistics import Statistics
from geoeq.data_doctor.unit_guess import explain, misreadings

__all__ = ["check_consistency"]

Values = NDArray[np.float64]

#: Smallest number of pairs, and largest uncertainty factor of the slope, of a conclusive line.
_FEWEST, _CERTAIN = 8, 1.5

#: Slopes within this factor of 1 are accepted, because frames are not infinitely close.
_IN_ORDER = 1.3

#: Slopes farther than the first factor from 1 indicate another unit; those between are reported only for lines whose
#: uncertainty is below the second factor.
_GROSS, _SHARP = 2.5, 1.03

#: Largest displacement for which the trapezoidal rule is useful, Å.
_FAR = 0.6

_REMEDY = "Correct the unit or the sign in the card (a key '-name' is the negative of 'name')."

_SHEARS = ("yz", "xz", "xy")


def check_consistency(statistics: Statistics) -> Iterator[Finding]:
    """Compare energy differences between close structures with the work of forces and stresses."""
    energies = [name for name in statistics.energies if np.isfinite(statistics.target(name)).all()]
    if "forces" not in statistics.targets or "forces" not in statistics.dataset.targets or not energies:
        return
    pairs = close_pairs(statistics)
    for name in energies:
        values = statistics.dataset.targets[name]
        change = np.asarray(values[pairs.second] - values[pairs.first], dtype=np.float64).reshape(-1)
        yield from _check_forces(statistics, name, pairs, change)
        if "stress" in statistics.targets and "stress" in statistics.dataset.targets:
            yield from _check_stress(statistics, name, pairs, change)


def _check_forces(statistics: Statistics, name: str, pairs: Pairs, change: Values) -> Iterator[Finding]:
    check = "energy and forces"
    use = ~pairs.strained & (pairs.moved < _FAR)
    scale = pairs.bend[use] + 1e-3 * np.abs(pairs.work[use]) + 1e-9  # so that all pairs have similar uncertainty
    line = line_through_origin(-pairs.work[use] / scale, change[use] / scale)
    away = abs(math.log(abs(line.slope))) if line.points else 0.0
    doubtful = line.slope > 0 and math.log(_IN_ORDER) < away < math.log(_GROSS) and line.factor > _SHARP
    if line.points < _FEWEST or line.factor > _CERTAIN or doubtful:
        yield note(check, f"Forces cannot be compared with the derivative of '{name}': {_too_few(line)}.")
        return
    text = (
        f"Between {line.points} pairs of close structures '{name}' changes by {line.slope:.3g} times the work of the "
        f"forces (uncertain by a factor of {line.factor:.2f})"
    )
    if away < math.log(_IN_ORDER) and line.slope > 0:
        yield note(check, f"{text}: they are consistent.")
        return
    atoms = float(np.median(pairs.atoms))
    causes = _with_sign(
        {
            **misreadings(statistics.dataset, name),
            **{cause: 1 / factor for cause, factor in misreadings(statistics.dataset, "forces").items()},
            f"'{name}' is per atom": 1 / atoms,
            "energies in Ha and forces in Ha/Bohr are read as eV and eV/Å": 1.8897,
            "positions are in Bohr, and read as Å": 1.8897,
            "": 1.0,
        },
        "forces",
        "are gradients",
    )
    gross = line.slope < 0 or away > math.log(_GROSS)
    yield finding(
        check,
        "error" if gross else "warning",
        f"{text}; the factor should be 1{_because(line, causes)}.",
        _REMEDY,
    )


def _check_stress(statistics: Statistics, name: str, pairs: Pairs, change: Values) -> Iterator[Finding]:
    check = "energy and stress"
    use = pairs.strained & (pairs.moved < _FAR)
    stress = statistics.dataset.targets["stress"]
    ends = [stress[indices].astype(np.float64) for indices in (pairs.first, pairs.second)]
    middle = 0.5 * (ends[0] + ends[1]).reshape(-1, 3, 3)[use]  # [P, 3, 3]
    strain, volume = pairs.strain[use], pairs.volume[use]
    rest = (change + pairs.work)[use]  # change of the energy due to the strain
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
        yield note(check, f"The stress cannot be compared with the derivative of '{name}': {_too_few(line)}.")
        return
    text = (
        f"Between {line.points} pairs of strained structures '{name}' changes by {line.slope:.3g} times the work of "
        f"the stress (uncertain by a factor of {line.factor:.2f})"
    )
    if abs(math.log(abs(line.slope))) < math.log(_IN_ORDER) and line.slope > 0:
        yield note(check, f"{text}: unit and sign of the stress are right.")
    else:
        typical_volume = float(np.median(volume))
        units = {cause: 1 / factor for cause, factor in misreadings(statistics.dataset, "stress").items()}
        virial = 1 / typical_volume / statistics.dataset.card.targets["stress"].to_internal("stress")
        causes = _with_sign(
            {
                **units,
                "it is a virial, not divided by the volume": virial,
                "": 1.0,
            },
            "stress",
            "is a pressure (ASE's stress is negative under pressure)",
        )
        yield error(check, f"{text}; the factor should be 1{_because(line, causes)}.", _REMEDY)
    yield from _check_shear_order(middle, strain, volume, rest - line.slope * axial, line.slope)


def _check_shear_order(middle: Values, strain: Values, volume: Values, rest: Values, slope: float) -> Iterator[Finding]:
    """Find the order of the three shears that explains the energy that is not due to the diagonal."""
    check = "order of the stress"
    components = ((1, 2), (0, 2), (0, 1))
    shears = np.stack([strain[:, i, j] for i, j in components], 1)
    largest = np.abs(shears).max(1, initial=0)
    use = largest > 3 * np.abs(strain[:, range(3), range(3)]).max(1, initial=0)
    if use.sum() < 4 or len(np.unique(np.abs(shears[use]).argmax(1))) < 2:
        return
    stresses = np.stack([middle[:, i, j] for i, j in components], 1)
    left = {}
    for order in itertools.permutations(range(3)):
        work = 2 * slope * volume * (stresses[:, order] * shears).sum(1)
        left[order] = float(np.median(np.abs(rest - work)[use]))
    best = min(left, key=lambda order: left[order])
    if best == (0, 1, 2) or left[best] > 0.3 * left[0, 1, 2]:
        yield note(check, f"The order of its shears is right, according to {int(use.sum())} pairs of sheared cells.")
        return
    swapped = ", ".join(
        f"{_SHEARS[source]} is actually {_SHEARS[true]}"
        for source, true in sorted(zip(best, range(3)))
        if source != true
    )
    yield error(
        check,
        f"The shears of the stress are in another order: {swapped}, according to {int(use.sum())} pairs of sheared "
        "cells.",
        "Specify the order in the card, as in 'options: {order: vasp}'.",
    )


def _with_sign(causes: Mapping[str, float], kind: str, opposite: str) -> dict[str, float]:
    opposites = {f"{cause}{' and ' if cause else ''}the {kind} {opposite}": -factor for cause, factor in causes.items()}
    return {cause: factor for cause, factor in {**causes, **opposites}.items() if cause}


def _because(line: Line, causes: Mapping[str, float]) -> str:
    likely = explain(line.slope, line.factor, causes)
    return f", as if {', or '.join(likely[:3])}" if likely else ""


def _too_few(line: Line) -> str:
    if line.points < 4:
        return f"there are only {line.points} pairs of close structures"
    return f"energies and work of {line.points} pairs are not on a line, because their structures are not close"
