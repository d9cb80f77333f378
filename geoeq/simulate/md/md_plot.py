"""Plot of a simulation: energies, temperature, pressure and volume over time, and the radial distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import units
from matplotlib.axes import Axes

from geoeq.plots import BLUE, GREEN, GREY, INK, ORANGE, new_figure, save_figure, set_title, style_axes
from geoeq.simulate.md.radial_distribution import RadialDistribution
from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.thermo import (
    CONSERVED,
    POTENTIAL,
    PRESSURE,
    TEMPERATURE,
    TIME,
    TOTAL,
    VOLUME,
    with_deviation,
)

__all__ = ["draw_summary"]

Rows = Sequence[Mapping[str, float]]


def draw_summary(
    path: Path,
    rows: Rows,
    radial: RadialDistribution | None,
    settings: MDSettings,
    title: str,
    drift: float | None,
) -> None:
    """Draw the log and the radial distribution.

    Args:
        path: PNG file to write.
        rows: rows of the log.
        radial: radial distribution of the frames; None if there are no frames or there is only one atom.
        settings: settings of the simulation.
        title: title of the figure.
        drift: drift of the conserved energy in eV/atom/ps; None if no energy is conserved.
    """
    panels = [name for name in (TEMPERATURE, PRESSURE, VOLUME) if rows and name in rows[0]]
    count = 1 + len(panels) + (radial is not None and bool(radial.values))
    height = (count + 1) // 2
    figure = new_figure(10.0, 0.5 + 3.1 * height)
    grid = figure.add_gridspec(height, 2)
    axes = [figure.add_subplot(grid[divmod(index, 2)]) for index in range(count - count % 2)]
    if count % 2:  # the last panel is as wide as two
        axes.append(figure.add_subplot(grid[height - 1, :]))
    scale, unit = (1000.0, "ps") if rows and rows[-1][TIME] >= 2000 else (1.0, "fs")
    _draw_energies(axes[0], rows, scale, drift)
    targets = {TEMPERATURE: settings.temperature if settings.ensemble != "nve" else None}
    if settings.pressure is not None:
        targets[PRESSURE] = settings.pressure / units.GPa
    for panel, name in zip(axes[1:], panels):
        _draw_column(panel, rows, name, scale, targets.get(name))
    for panel in axes[: 1 + len(panels)]:
        panel.set_xlabel(f"time [{unit}]")
        panel.margins(x=0.01)
    if radial is not None and radial.values:
        _draw_radial(axes[-1], radial)
    save_figure(figure, path, title)


def _draw_energies(axes: Axes, rows: Rows, scale: float, drift: float | None) -> None:
    style_axes(axes)
    first = rows[0][POTENTIAL]
    times = [row[TIME] / scale for row in rows]
    for name, label, color in (
        (POTENTIAL, "potential", BLUE),
        (TOTAL, "total", ORANGE),
        (CONSERVED, "conserved", GREEN),
    ):
        if name in rows[0]:
            values = [1000 * (row[name] - first) for row in rows]
            axes.plot(times, values, color=color, linewidth=1.3, label=label, marker="o" if len(rows) < 3 else None)
    axes.set_ylabel("energy [meV/atom]")
    note = "" if drift is None else f", drift {1000 * drift:.2g} meV/atom/ps"
    set_title(axes, f"energy relative to {first:.4f} eV/atom{note}")
    _legend(axes)


def _draw_column(axes: Axes, rows: Rows, name: str, scale: float, target: float | None) -> None:
    style_axes(axes)
    values = np.array([row[name] for row in rows])
    times = [row[TIME] / scale for row in rows]
    axes.plot(times, values, color=BLUE, linewidth=1.1, marker="o" if len(rows) < 3 else None)
    half = values[len(values) // 2 :]
    mean = float(half.mean())
    name = name.replace("^3", "³")
    quantity, _, unit = name.rstrip("]").partition(" [")
    label = f"mean of second half: {with_deviation(mean, float(half.std()) if len(half) > 1 else None)} {unit}"
    axes.plot([times[len(times) // 2], times[-1]], [mean, mean], color=ORANGE, linewidth=1.8, label=label)
    if target is not None:
        axes.axhline(target, color=INK, linewidth=1, linestyle=(0, (4, 3)), label=f"target: {target:.4g} {unit}")
    axes.set_ylabel(name)
    axes.ticklabel_format(axis="y", useOffset=False)
    set_title(axes, quantity)
    _legend(axes)


def _draw_radial(axes: Axes, radial: RadialDistribution) -> None:
    style_axes(axes)
    for (pair, values), color in zip(radial.values.items(), (BLUE, ORANGE, GREEN)):
        axes.plot(radial.distances, values, color=color, linewidth=1.3, label=pair)
    if radial.normalized:
        axes.axhline(1.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlim(0, radial.distances[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("distance [Å]")
    axes.set_ylabel("g(r)" if radial.normalized else "neighbours per atom and Å")
    kind = "radial distribution function" if radial.normalized else "pair distances"
    set_title(axes, f"{kind}, second half")
    _legend(axes)


def _legend(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.22 * (high - low))  # room above the curves
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="upper right", ncols=3, columnspacing=1.2)
