"""Check energies: outliers from a linear model on the composition, and magnitudes that do not fit the unit."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoeq.data_doctor.findings import Finding, error, note, warning
from geoeq.data_doctor.robust import outliers, robust_fit, spread
from geoeq.data_doctor.statistics import Statistics
from geoeq.data_doctor.unit_guess import explain, misreadings
from geoeq.fields import FIELDS, NUM_ELEMENTS
from geoeq.units import conversion

__all__ = ["check_energies", "residuals"]

Values = NDArray[np.float64]

#: Outliers: multiple of the median, gap to the next smaller value, and smallest residual in eV/atom.
_TIMES, _GAP, _LEAST = 8.0, 3.0, 0.05

#: Plausible atomization energies in eV/atom: tungsten crystals have -8.9, weak bonds some hundredths.
_STRONGEST, _WEAKEST = -10.0, -0.4

#: Total energies agree with the estimate from free atoms up to this factor.
_ESTIMATE = 1.08


def check_energies(statistics: Statistics) -> Iterator[Finding]:
    """Check every energy that grows with the number of atoms."""
    first = True
    for name in statistics.targets:
        known = FIELDS[name]
        if known.level != "graph" or known.unit != "eV" or not known.extensive or statistics.counts is None:
            continue
        values = statistics.target(name).reshape(-1)
        if np.isfinite(values).all() and len(values) > 1:
            findings = [*_outliers(statistics, name), *_magnitude(statistics, name, values)]
            # Notes are reported for the first energy only: those of the others would repeat them.
            yield from (one for one in findings if first or one.severity != "note")
            first = False


def residuals(statistics: Statistics, name: str) -> Values:
    """Return the residuals of a linear model of an energy on the composition, per atom, [S] eV."""
    values = statistics.target(name).reshape(-1)
    if statistics.counts is None:
        return (values - np.median(values)) / statistics.columns["size"]
    present = np.flatnonzero(statistics.counts.any(0))
    size = statistics.columns["size"][:, None]
    fractions = statistics.counts[:, present] / size
    shift = np.median(values / size[:, 0])
    per_atom = values / size[:, 0] - shift
    rest: Values = per_atom - fractions @ robust_fit(fractions, per_atom)
    return rest


def _outliers(statistics: Statistics, name: str) -> Iterator[Finding]:
    rest = residuals(statistics, name)
    rest = rest - np.median(rest)
    rows = outliers(np.abs(rest), _TIMES, _GAP)
    rows = rows[np.abs(rest[rows]) > _LEAST]
    width = spread(rest)
    if len(rows):
        yield warning(
            "energies",
            f"'{name}' of {len(rows)} structure{'s' if len(rows) > 1 else ''} is far from a linear model on the "
            f"composition: by up to {rest[rows[0]]:+.3g} eV/atom, where others scatter by {width:.2g} eV/atom.",
            "Inspect them: a calculation that did not converge, another method, or another reference.",
            statistics.indices[rows],
        )
    elif width > 0:
        yield note(
            "energies",
            f"'{name}' scatters by {width:.3g} eV/atom about a linear model on the composition, and deviates from it "
            f"by at most {np.abs(rest).max():.3g} eV/atom.",
        )


def _magnitude(statistics: Statistics, name: str, values: Values) -> Iterator[Finding]:
    counts = statistics.counts
    if counts is None:
        return
    if name.startswith("atomization"):
        yield from _atomization(statistics, name, values)
    elif not name.startswith(("adsorption", "zero_point")):
        estimate = counts.astype(np.float64) @ all_electron_energies()
        ratio = float(np.median(values / estimate))
        if abs(math.log(abs(ratio) or 1e-9)) < math.log(_ESTIMATE) and ratio > 0:
            text = f"'{name}' is a total energy of all electrons; its magnitude fits the unit."
            yield note("unit of the energy", text)
            return
        causes = explain(ratio, _ESTIMATE, misreadings(statistics.dataset, name))
        causes = [cause for cause in causes if " meV " not in cause]
        per_atom = abs(float(np.median(values / statistics.columns["size"])))
        if causes and float(values.std()) > 0 and per_atom > 1:
            yield warning(
                "unit of the energy",
                f"'{name}' is {ratio:.3g} times the total energy of all electrons of such atoms, as if {causes[0]}.",
                "Check the unit in the card.",
            )


def _atomization(statistics: Statistics, name: str, values: Values) -> Iterator[Finding]:
    size = statistics.columns["size"]
    typical = float(np.median((values / size)[size > 1]))
    if _STRONGEST <= typical <= _WEAKEST or not math.isfinite(typical):
        return
    check = "unit of the energy"
    if typical > 0:
        yield error(
            check,
            f"'{name}' is positive ({typical:.3g} eV/atom); for bound structures it is negative.",
            "Negate it in the card: a key '-name' is the negative of 'name'.",
        )
    elif typical < _STRONGEST:
        causes = [
            cause
            for cause, factor in misreadings(statistics.dataset, name).items()
            if _STRONGEST <= typical / factor <= _WEAKEST
        ]
        yield error(
            check,
            f"'{name}' is {typical:.4g} eV/atom; no structure is bound by more than 10 eV/atom"
            f"{', as if ' + ', or '.join(causes) if causes else ''}.",
            "Check the unit in the card.",
        )


def all_electron_energies() -> Values:
    """Return total energies of neutral atoms by atomic number in eV, within 10% for hydrogen and 1% for others.

    Source:
        J. Schwinger, Phys. Rev. A 24, 2353 (1981): the statistical theory with its corrections in powers of Z^(1/3).
    """
    z = np.arange(NUM_ELEMENTS, dtype=np.float64)
    hartree = -0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.2699 * z ** (5 / 3)
    return np.asarray(hartree * conversion("Ha", "eV"))
