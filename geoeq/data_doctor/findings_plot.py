"""Plot of ``geoeq data doctor``: histograms of energies, forces, distances, neighbours and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from geoeq.data_doctor.energies import residuals
from geoeq.data_doctor.statistics import Statistics
from geoeq.plots import BLUE, INK, ORANGE, new_figure, save_figure, style_axes

__all__ = ["draw_diagnosis"]

_BINS = 40

#: Largest count with a linear scale.
_LINEAR = 20

#: Number of structures whose force components are drawn.
_STRUCTURES = 500


def draw_diagnosis(path: Path, statistics: Statistics, title: str) -> None:
    """Draw histograms; large counts have a log scale, so that single outliers are visible.

    Args:
        path: PNG file to write.
        statistics: statistics to draw.
        title: title of the figure.
    """
    panels = _panels(statistics)
    rows = -(-len(panels) // 2)
    figure = new_figure(9.6, 2.7 * rows + 0.5)
    grid = figure.add_gridspec(rows, 2)
    for index, (label, values) in enumerate(panels.items()):
        alone = index + 1 == len(panels) and len(panels) % 2 == 1  # as wide as two
        _draw(figure.add_subplot(grid[index // 2, :] if alone else grid[divmod(index, 2)]), label, values)
    save_figure(figure, path, title)


def _panels(statistics: Statistics) -> dict[str, NDArray[np.float64]]:
    columns = statistics.columns
    panels = {
        f"{name.replace('_', ' ')} minus that of a linear model on composition [eV/atom]": residuals(statistics, name)
        for name in statistics.energies[:1]
    }
    if "force_rms" in columns:
        some = statistics.indices[:: max(1, len(statistics.indices) // _STRUCTURES)]
        forces = statistics.dataset.batch(some, targets=["forces"], dtype=torch.float64).forces
        panels["force components [eV/Å]"] = forces.reshape(-1).numpy()
        panels["largest force per structure [eV/Å]"] = columns["largest_force"]
        panels["net force per atom [eV/Å]"] = columns["net_force"] / columns["size"]
    panels["shortest distance per structure [Å]"] = columns["nearest"]
    panels[f"mean number of neighbours within {statistics.cutoff:g} Å"] = columns["neighbours"]
    panels["number of atoms"] = columns["size"]
    return panels


def _draw(axes: Axes, label: str, values: NDArray[np.float64]) -> None:
    style_axes(axes)
    shown = values[np.isfinite(values)]
    axes.set_xlabel(label, fontsize=8.5)
    counted = "components" if label.startswith("force components") else "structures"
    axes.set_ylabel(f"number of {counted}", fontsize=8.5, color=INK)
    if len(shown) == 0:
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, ha="center", color=ORANGE)
        return
    low, high = float(shown.min()), float(shown.max())
    margin = 0.02 * (high - low) or 0.5
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    if label == "number of atoms":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    counts, _, _ = axes.hist(shown, bins=edges.tolist(), color=BLUE, alpha=0.85)
    if np.max(counts) > _LINEAR:
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.7)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    missing = len(values) - len(shown)
    if missing:
        axes.set_title(f"{missing} not finite", loc="right", fontsize=8, color=ORANGE)
