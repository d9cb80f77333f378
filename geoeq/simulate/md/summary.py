"""Summary of a finished simulation: means, energy drift and radial distribution, as numbers and as a plot."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.io import iread

from geoeq.files import read_log, write_json
from geoeq.resources import import_extra
from geoeq.simulate.md.radial_distribution import REACH, RadialDistribution, radial_distribution
from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.simulation import LOG, TRAJECTORY, Simulation
from geoeq.simulate.md.thermo import (
    CONSERVED,
    POTENTIAL,
    PRESSURE,
    SPEED,
    TEMPERATURE,
    TIME,
    TOTAL,
    VOLUME,
    with_deviation,
)

__all__ = ["DRIFT", "PICTURE", "RESULTS", "drift", "result_lines", "summarize", "write_summary"]

DRIFT = "drift [eV/atom/ps]"

RESULTS, PICTURE = "results.json", "summary.png"

_AVERAGED = (POTENTIAL, TOTAL, TEMPERATURE, PRESSURE, VOLUME)

#: Radial distribution: largest number of frames, and of pairs in all of them.
_FRAMES, _EDGES = 50, 4_000_000

#: Atoms per Å^3 of a dense structure, to estimate the number of pairs.
_DENSITY = 0.1


def write_summary(simulation: Simulation, title: str, *, stopped: str | None = None) -> dict[str, Any]:
    """Write ``results.json`` and ``summary.png`` into the folder of a finished simulation.

    Args:
        simulation: the finished simulation.
        title: title of the plot.
        stopped: reason why it ended before its last step; None if it did not.

    Returns:
        The content of ``results.json``: the step, means and standard deviations of the second half of the log, the
        drift of the conserved energy, and the speed.

    Raises:
        MissingExtraError: the extra "plots" is not installed.
    """
    import_extra("matplotlib", "plots")
    from geoeq.simulate.md.md_plot import draw_summary

    folder, settings = simulation.folder, simulation.settings
    rows = read_log(folder / LOG)
    time = simulation.step * settings.timestep / 1000
    results = {"step": simulation.step, "time [ps]": time, "stopped": stopped, **summarize(rows, settings)}
    write_json(folder / RESULTS, results)
    if rows:
        slope = results.get(DRIFT)
        draw_summary(folder / PICTURE, rows, _radial_distribution(simulation), settings, title, slope)
    return results


def summarize(rows: Sequence[Mapping[str, float]], settings: MDSettings) -> dict[str, Any]:
    """Summarize the rows of a log.

    Returns:
        "means": column -> [mean, standard deviation (None for one row)] over the second half; "drift [eV/atom/ps]"
        if an energy is conserved and there are at least three rows; "ns/day": the median of the rows.
    """
    half = rows[len(rows) // 2 :]
    results: dict[str, Any] = {"means": {}}
    for name in _AVERAGED:
        values = [row[name] for row in half if name in row]
        if values:
            results["means"][name] = [float(np.mean(values)), float(np.std(values)) if len(values) > 1 else None]
    slope = drift(rows, settings)
    if slope is not None:
        results[DRIFT] = slope
    speeds = [row[SPEED] for row in rows if SPEED in row]
    results[SPEED] = float(np.median(speeds)) if speeds else None
    return results


def drift(rows: Sequence[Mapping[str, float]], settings: MDSettings) -> float | None:
    """Return the drift in eV/atom/ps of the total energy (nve) or of the conserved energy of a thermostat chain.

    The result is None if no energy is conserved or there are fewer than three rows.
    """
    name = TOTAL if settings.ensemble == "nve" else CONSERVED
    points = [(row[TIME] / 1000, row[name]) for row in rows if name in row]
    if len(points) < 3:
        return None
    times, energies = np.array(points).T
    times = times - times.mean()
    return float((times * (energies - energies.mean())).sum() / (times**2).sum())


def result_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the means, the drift and the speed as lines of text."""
    lines = ["Means of the second half:"]
    for name, (mean, deviation) in results["means"].items():
        quantity, _, unit = name.rstrip("]").partition(" [")
        lines.append(f"  {quantity:18} {with_deviation(mean, deviation)} {unit}")
    if DRIFT in results:
        lines.append(f"  {'drift':18} {results[DRIFT]:.2g} eV/atom/ps")
    if results[SPEED] is not None:
        lines.append(f"  {'speed':18} {results[SPEED]:.4g} ns/day")
    return lines


def _radial_distribution(simulation: Simulation) -> RadialDistribution | None:
    """Average over the second half of the frames; large systems use fewer frames and a shorter distance."""
    every, count = simulation.settings.frame_every, len(simulation.atoms)
    frames = simulation.step // every + 1
    if count < 2:
        return None
    neighbors = 4 / 3 * math.pi * REACH**3 * _DENSITY
    if not simulation.atoms.pbc.any():
        neighbors = min(count, neighbors)
    reach = REACH * min(1.0, (_EDGES / (count * neighbors)) ** (1 / 3))
    chosen = min(_FRAMES, max(1, int(_EDGES / (count * neighbors))), frames - frames // 2)
    stride = max(1, (frames - frames // 2) // chosen)
    frames_read = iread(simulation.folder / TRAJECTORY, index=slice(frames // 2, frames, stride), format="extxyz")
    return radial_distribution(list(frames_read), reach)
