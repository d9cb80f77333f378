"""What a simulation found: means of the second half of its log, and the drift of what should be conserved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.thermo import CONSERVED, POTENTIAL, PRESSURE, SPEED, TEMPERATURE, TIME, TOTAL, VOLUME

__all__ = ["DRIFT", "drift", "summarize", "with_spread"]

DRIFT = "drift [eV/atom/ps]"

_AVERAGED = (POTENTIAL, TOTAL, TEMPERATURE, PRESSURE, VOLUME)


def summarize(rows: Sequence[Mapping[str, float]], settings: MDSettings) -> dict[str, Any]:
    """Of the rows of a log.

    Returns:
        "means": column -> [mean, standard deviation] over the second half; "drift [eV/atom/ps]" where something is
        conserved and there are three rows or more; "ns/day": the median of the rows.
    """
    half = rows[len(rows) // 2 :]
    found: dict[str, Any] = {"means": {}}
    for name in _AVERAGED:
        values = [row[name] for row in half if name in row]
        if values:
            found["means"][name] = [float(np.mean(values)), float(np.std(values))]
    slope = drift(rows, settings)
    if slope is not None:
        found[DRIFT] = slope
    speeds = [row[SPEED] for row in rows if SPEED in row]
    found[SPEED] = float(np.median(speeds)) if speeds else None
    return found


def drift(rows: Sequence[Mapping[str, float]], settings: MDSettings) -> float | None:
    """The slope of the total energy (nve), or of what a chain conserves, in eV/atom/ps; None where nothing is."""
    name = TOTAL if settings.ensemble == "nve" else CONSERVED
    points = [(row[TIME] / 1000, row[name]) for row in rows if name in row]
    if len(points) < 3:
        return None
    times, energies = np.array(points).T
    times = times - times.mean()
    return float((times * (energies - energies.mean())).sum() / (times**2).sum())


def with_spread(mean: float, deviation: float) -> str:
    """A mean with as many digits as its standard deviation gives sense to: 299.8 ± 4.2."""
    if not deviation > 1e-6 * abs(mean):
        return f"{mean:.6g} ± {deviation:.1g}"
    decimals = max(0, 1 - math.floor(math.log10(deviation)))
    mean = round(mean, decimals) + 0.0  # no negative zero
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"
