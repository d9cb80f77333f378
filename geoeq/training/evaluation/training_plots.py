"""The two pictures of a run: what was predicted against what is true, and how it was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from geoeq.files import atomic_write
from geoeq.plots import BLUE, GREY, GRID, INK, ORANGE, style_axes
from geoeq.training.evaluation.metrics import errors, headline
from geoeq.training.evaluation.results import TargetResults
from geoeq.units import format_number

__all__ = ["draw_learning", "draw_parity"]

Values = NDArray[np.float64]


def draw_parity(path: Path, prediction: Values, truth: Values, target: str, unit: str, title: str) -> None:
    """Predicted against true values, with the distribution of the errors in a corner.

    Args:
        path: the PNG.
        prediction: in ``unit``, any shape; components are drawn together.
        truth: the same.
        target: the field.
        unit: "1" for none.
        title: what is shown.
    """
    x, y = truth.reshape(-1), prediction.reshape(-1)
    suffix = "" if unit == "1" else f" [{unit}]"
    figure = Figure(figsize=(5.6, 5.6), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes)
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.04 * (high - low or 1.0)
    limits = (low - margin, high + margin)
    axes.plot(limits, limits, color=GREY, linewidth=1, zorder=1)
    size = float(np.clip(2500 / max(len(x), 1), 1.5, 22))
    axes.scatter(
        x, y, s=size, color=BLUE, alpha=0.55 if len(x) < 5000 else 0.2, linewidths=0, zorder=2, rasterized=True
    )
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    name = target.replace("_", " ")
    axes.set_xlabel(f"true {name}{suffix}")
    axes.set_ylabel(f"predicted {name}{suffix}")
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    _error_inset(axes.inset_axes((0.63, 0.09, 0.33, 0.25)), y - x, suffix)

    measured = errors(y, x)
    metrics = ("MSE", "MAE") if headline(target) == "MSE" else ("MAE", "RMSE")
    text = "\n".join(
        f"{m} {format_number(measured[m])}{'' if m == 'MSE' or unit == '1' else ' ' + unit}" for m in metrics
    )
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=11, color=INK, linespacing=1.5)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _error_inset(axes: Axes, difference: Values, suffix: str) -> None:
    span = float(np.quantile(np.abs(difference), 0.99)) or 1.0
    axes.hist(difference, bins=np.linspace(-span, span, 41).tolist(), color=BLUE, alpha=0.75)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks([])
    axes.tick_params(labelsize=7, length=2, color=GREY, labelcolor=INK)
    axes.set_xlabel(f"error{suffix}", fontsize=7.5, color=INK, labelpad=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.set_facecolor("none")


def draw_learning(path: Path, rows: Sequence[dict[str, float]], results: TargetResults, unit: str, title: str) -> None:
    """The error of training and validation by epoch, with the best baseline as a line.

    Args:
        path: the PNG.
        rows: of the log.
        results: of the target.
        unit: of its headline metric; empty for none.
        title: what is shown.
    """
    target = results.target
    baseline = [row for row in results.rows if row.kind == "baseline"][-1]
    metric = headline(target)
    figure = Figure(figsize=(6.4, 4.2), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes)
    axes.grid(True, which="minor", color=GRID, linewidth=0.4)
    label = f"{metric} {target}" + (f" [{unit}]" if unit else "")
    for stage, name, color in (("train", "training", ORANGE), ("valid", "validation", BLUE)):
        points = [(row["epoch"], row[f"{stage} {label}"]) for row in rows if f"{stage} {label}" in row]
        if not points:
            continue
        epochs, values = zip(*points)
        axes.plot(epochs, values, color=color, linewidth=1.6, marker="o" if len(points) < 3 else None)
        lowest = int(np.argmin(values))
        axes.plot(epochs[lowest], values[lowest], "o", color=color, markersize=5)
        note = f"{name}: {format_number(values[lowest])} in epoch {epochs[lowest]}"
        axes.plot([], [], color=color, linewidth=1.6, marker="o", markersize=5, label=note)
    if "valid" in baseline.errors:
        value = baseline.errors["valid"][metric]
        name = f"{baseline.name}: {format_number(value)}"
        axes.axhline(value, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label=name)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 4 * low:  # too short for the ticks of decades
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{metric} of {target.replace('_', ' ')}" + (f" [{unit}]" if unit else ""))
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
