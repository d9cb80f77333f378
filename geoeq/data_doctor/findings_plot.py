"""The picture of ``geoeq data doctor``: histograms of energies, forces, distances, neighbours and sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geoeq.data_doctor import Chart, residuals
from geoeq.files import atomic_write
from geoeq.plots import BLUE, INK, ORANGE, style_axes

__all__ = ["draw_diagnosis"]

_BINS = 40

#: Structures whose components of forces are drawn.
_STRUCTURES = 500


def draw_diagnosis(path: Path, chart: Chart, title: str) -> None:
    """Draw what was measured; counts are on a log scale, so that what is alone is seen.

    Args:
        path: the PNG.
        chart: the measurements.
        title: what is shown.
    """
    panels = _panels(chart)
    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(9.6, 2.7 * rows + 0.5), dpi=150, layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False).ravel()
    for place, (label, values) in zip(axes, panels.items()):
        _draw(place, label, values)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _panels(chart: Chart) -> dict[str, NDArray[np.float64]]:
    columns = chart.columns
    panels = {
        f"{name.replace('_', ' ')} less a linear model on composition [eV/atom]": residuals(chart, name)
        for name in chart.energies[:1]
    }
    if "force_rms" in columns:
        some = chart.places[:: max(1, len(chart.places) // _STRUCTURES)]
        forces = chart.dataset.batch(some, targets=["forces"], dtype=torch.float64).forces
        panels["components of forces [eV/Å]"] = forces.reshape(-1).numpy()
        panels["largest force of each structure [eV/Å]"] = columns["largest_force"]
        panels["sum of forces for each atom [eV/Å]"] = columns["net_force"] / columns["size"]
    panels["shortest distance of each structure [Å]"] = columns["nearest"]
    panels[f"neighbours within {chart.cutoff:g} Å, mean of each structure"] = columns["neighbours"]
    panels["atoms of each structure"] = columns["size"]
    return panels


def _draw(axes: Axes, label: str, values: NDArray[np.float64]) -> None:
    style_axes(axes)
    shown = values[np.isfinite(values)]
    axes.set_xlabel(label, fontsize=8.5)
    axes.set_ylabel("components" if label.startswith("components") else "structures", fontsize=8.5, color=INK)
    if len(shown) == 0:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color=ORANGE)
        return
    low, high = float(shown.min()), float(shown.max())
    margin = 0.02 * (high - low) or 0.5
    edges = np.linspace(low - margin, high + margin, _BINS + 1)
    axes.hist(shown, bins=edges.tolist(), color=BLUE, alpha=0.85)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    lost = len(values) - len(shown)
    if lost:
        axes.set_title(f"{lost} have none", loc="right", fontsize=8, color=ORANGE)
