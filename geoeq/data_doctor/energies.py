"""Energies: what is left after the composition, what stands out, and whether the magnitude fits the unit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoeq.data_doctor.findings import Finding, finding
from geoeq.data_doctor.statistics import robust_fit, spread, standing_out
from geoeq.data_doctor.survey import Chart
from geoeq.data_doctor.unit_guess import explain, misreadings
from geoeq.fields import FIELDS, NUM_ELEMENTS

__all__ = ["check_energies", "residuals"]

Values = NDArray[np.float64]

#: Energies stand out that are so many times the median from the others, after a gap of this factor.
_TIMES, _GAP = 8.0, 3.0

#: and by so much, eV for each atom.
_LEAST = 0.05

#: Atomization energies for each atom, eV: crystals of tungsten have -8.9, weak bonds some hundredths.
_STRONGEST, _WEAKEST = -10.0, -0.4

#: Total energies agree with the estimate from atoms up to this factor.
_ESTIMATE = 1.08


def check_energies(chart: Chart) -> Iterator[Finding]:
    """Judge every energy that grows with the number of atoms."""
    told = False
    for name in chart.targets:
        known = FIELDS[name]
        if known.level != "graph" or known.unit != "eV" or not known.extensive or chart.counts is None:
            continue
        values = chart.target(name).reshape(-1)
        if np.isfinite(values).all() and len(values) > 1:
            found = [*_outliers(chart, name), *_magnitude(chart, name, values)]
            yield from (
                one for one in found if not told or one.severity != "note"
            )  # of many energies notes say the same
            told = True


def residuals(chart: Chart, name: str) -> Values:
    """What a linear model on the composition leaves of an energy, for each atom, [S] eV."""
    values = chart.target(name).reshape(-1)
    if chart.counts is None:
        return (values - np.median(values)) / chart.columns["size"]
    present = np.flatnonzero(chart.counts.any(0))
    size = chart.columns["size"][:, None]
    fractions = chart.counts[:, present] / size
    shift = np.median(values / size[:, 0])
    per_atom = values / size[:, 0] - shift
    rest: Values = per_atom - fractions @ robust_fit(fractions, per_atom)
    return rest


def _outliers(chart: Chart, name: str) -> Iterator[Finding]:
    rest = residuals(chart, name)
    rest = rest - np.median(rest)
    rows = standing_out(np.abs(rest), _TIMES, _GAP)
    rows = rows[np.abs(rest[rows]) > _LEAST]
    width = spread(rest)
    if len(rows):
        yield finding(
            "energies",
            "warning",
            f"'{name}' of {len(rows)} structure{'s' if len(rows) > 1 else ''} is far from what the composition says: "
            f"by up to {rest[rows[0]]:+.3g} eV for each atom, where others scatter by {width:.2g}.",
            "Look at them: a calculation that did not converge, another method, another reference.",
            chart.places[rows],
        )
    elif width > 0:
        yield finding(
            "energies",
            "note",
            f"'{name}' scatters by {width:.3g} eV for each atom about a linear model on "
            f"the composition; at the most it is {np.abs(rest).max():.3g} from it.",
        )


def _magnitude(chart: Chart, name: str, values: Values) -> Iterator[Finding]:
    counts = chart.counts
    if counts is None:
        return
    if name.startswith("atomization"):
        yield from _atomization(chart, name, values)
    elif not name.startswith(("adsorption", "zero_point")):
        estimate = counts.astype(np.float64) @ all_electron_energies()
        ratio = float(np.median(values / estimate))
        causes = misreadings(chart.dataset, name)
        if abs(math.log(abs(ratio) or 1e-9)) < math.log(_ESTIMATE) and ratio > 0:
            yield finding("unit of the energy", "note", f"'{name}' is a total energy of all electrons; its size fits.")
            return
        found = explain(ratio, _ESTIMATE, causes)
        alone = [cause for cause in found if " meV " not in cause]
        if alone and float(values.std()) > 0 and abs(float(np.median(values / chart.columns["size"]))) > 1:
            yield finding(
                "unit of the energy",
                "warning",
                f"'{name}' is {ratio:.3g} times the total energy of all "
                f"electrons that atoms of this kind have, as if {alone[0]}.",
                "Compare the unit in the card.",
            )


def _atomization(chart: Chart, name: str, values: Values) -> Iterator[Finding]:
    typical = float(np.median((values / chart.columns["size"])[chart.columns["size"] > 1]))
    if _STRONGEST <= typical <= _WEAKEST or not math.isfinite(typical):
        return
    check = "unit of the energy"
    if typical > 0:
        yield finding(
            check,
            "error",
            f"'{name}' is positive ({typical:.3g} eV for each atom); that of what is bound is negative.",
            "Take the opposite in the card: a key '-name' is the opposite of 'name'.",
        )
    elif typical < _STRONGEST:
        fits = [
            cause
            for cause, factor in misreadings(chart.dataset, name).items()
            if _STRONGEST <= typical / factor <= _WEAKEST
        ]
        yield finding(
            check,
            "error",
            f"'{name}' is {typical:.4g} eV for each atom; nothing is bound by more than 10 eV"
            f"{', as if ' + ', or '.join(fits) if fits else ''}.",
            "Compare the unit in the card.",
        )


def all_electron_energies() -> Values:
    """Total energies of neutral atoms, eV, by atomic number, within 10% for hydrogen and 1% for others.

    Source:
        J. Schwinger, Phys. Rev. A 24, 2353 (1981): the statistical theory with its corrections in powers of Z^(1/3).
    """
    from geoeq.units import conversion

    z = np.arange(NUM_ELEMENTS, dtype=np.float64)
    hartree = -0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3)
    return np.asarray(hartree * conversion("Ha", "eV"))
