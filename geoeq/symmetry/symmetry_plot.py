"""Plot of ``geoeq check``: the error of each check and, with --layers, of each layer, on a log scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoeq.plots import BLUE, GREY, INK, ORANGE, new_figure, save_figure, set_title, style_axes
from geoeq.symmetry.layers import LayerReport
from geoeq.symmetry.symmetry_report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_check"]

#: Values drawn for an error of zero, and for one that is not finite.
LOWEST, HIGHEST = 1e-17, 1e3

_MARKERS = {"rotation": "o", "reflection": "s", "translation": "^", "permutation": "D"}

#: Legends are one row above the right end of the axes.
_LEGEND: dict[str, Any] = {
    "frameon": False,
    "fontsize": 8,
    "labelcolor": INK,
    "ncols": 4,
    "loc": "lower right",
    "bbox_to_anchor": (1.0, 1.0),
}


def draw_check(path: Path, report: Report, layers: LayerReport | None = None) -> None:
    """Draw the errors.

    Args:
        path: PNG file to write.
        report: report of the checks.
        layers: report of the layers; None omits them.
    """
    names = [result.name for result in report.results]
    rows = max(map(len, layers.layers.values()), default=0) if layers else 0
    heights = [0.27 * len(names) + 1.2] + ([0.27 * rows + 1.2] if layers else [])
    figure = new_figure(8.4, sum(heights), dpi=160)
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_checks(axes[0], report)
    if layers:
        _draw_layers(axes[1], layers)
    save_figure(figure, path)


def _draw_checks(axes: Axes, report: Report) -> None:
    from matplotlib.lines import Line2D

    _prepare(axes, [result.name for result in report.results])
    for row, result in enumerate(report.results):
        if result.error is None:
            axes.text(LOWEST * 3, row, "not applicable", va="center", fontsize=8, color=GREY)
            continue
        error = _shown(result.error)
        color = BLUE if result.status == "passed" else ORANGE
        axes.plot([LOWEST, error], [row, row], color=color, linewidth=1.2, alpha=0.5)
        axes.plot(error, row, "o" if math.isfinite(result.error) else ">", color=color, markersize=6)
        axes.plot(result.tolerance, row, "|", color=INK, markersize=11, markeredgewidth=1.4)
    axes.set_xlabel("relative error (energy drift: eV/atom/ps)")
    set_title(axes, report.name, 11)
    axes.legend(
        handles=[
            Line2D([], [], color=BLUE, marker="o", linestyle="", label="passed"),
            Line2D([], [], color=ORANGE, marker="o", linestyle="", label="failed"),
            Line2D([], [], color=INK, marker="|", markersize=11, linestyle="", label="tolerance"),
        ],
        **_LEGEND,
    )


def _draw_layers(axes: Axes, layers: LayerReport) -> None:
    longest = max(layers.layers.values(), key=len)
    _prepare(axes, [f"{row.name} ({row.kind})" for row in longest])
    for symmetry, rows in layers.layers.items():
        marker = _MARKERS.get(symmetry, "o")
        errors = [_shown(row.output) for row in rows]
        axes.plot(
            errors, list(range(len(rows))), marker=marker, markersize=4.5, linewidth=0.9, alpha=0.85, label=symmetry
        )
    for index, name in enumerate(row.name for row in longest):
        broken = [symmetry for symmetry, culprit in layers.culprits.items() if culprit.name == name]
        if broken:
            axes.axhspan(index - 0.4, index + 0.4, color=ORANGE, alpha=0.2, linewidth=0)
            text = "\n".join(["breaks", *broken])
            axes.text(HIGHEST * 20, index, text, va="center", fontsize=8, color=ORANGE)
    limit = max((row.tolerance for rows in layers.layers.values() for row in rows), default=LOWEST)
    axes.axvline(limit, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_xlabel("relative error of the output of each layer (dashed: tolerance)")
    set_title(axes, "layers", 11)
    axes.legend(**_LEGEND)


def _prepare(axes: Axes, names: list[str]) -> None:
    style_axes(axes)
    axes.set_xscale("log")
    axes.set_xlim(LOWEST, HIGHEST * 10)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _shown(error: float) -> float:
    return min(max(error, LOWEST), HIGHEST) if math.isfinite(error) else HIGHEST
