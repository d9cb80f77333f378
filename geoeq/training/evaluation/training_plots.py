"""Plots of training: parity plot, learning curves, and the comparison of recipes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from geoeq.files import read_log
from geoeq.plots import BLUE, GREY, GRID, INK, ORANGE, new_figure, save_figure, set_title, style_axes
from geoeq.training.evaluation.comparison_table import Comparison
from geoeq.training.evaluation.metrics import errors, headline
from geoeq.training.evaluation.results import TargetResults
from geoeq.units import format_number

__all__ = ["MARKERS", "draw_comparison", "draw_learning", "draw_parity"]

Values = NDArray[np.float64]


def draw_parity(path: Path, prediction: Values, truth: Values, target: str, unit: str, title: str) -> None:
    """Draw a parity plot of predicted against true values, with a histogram of the errors.

    Args:
        path: path of the PNG file.
        prediction: predicted values in ``unit``, of any shape; all components are drawn.
        truth: true values of the same shape and unit.
        target: name of the field.
        unit: unit of the values; "1" if there is none.
        title: title of the plot.
    """
    x, y = truth.reshape(-1), prediction.reshape(-1)
    suffix = "" if unit == "1" else f" [{unit}]"
    figure = new_figure(5.6, 5.6, dpi=160)
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
    set_title(axes, title, 11)
    _error_inset(axes.inset_axes((0.63, 0.09, 0.33, 0.25)), y - x, suffix)

    measured = errors(y, x)
    metrics = ("MSE", "MAE") if headline(target) == "MSE" else ("MAE", "RMSE")
    text = "\n".join(
        f"{m} {format_number(measured[m])}{'' if m == 'MSE' or unit == '1' else ' ' + unit}" for m in metrics
    )
    axes.text(0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=11, color=INK, linespacing=1.5)
    save_figure(figure, path)


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
    """Draw the training and validation errors by epoch, with the best baseline as a line.

    Args:
        path: path of the PNG file.
        rows: rows of the log.
        results: results of the target.
        unit: unit of its headline metric; empty if there is none.
        title: title of the plot.
    """
    target = results.target
    baseline = [row for row in results.rows if row.kind == "baseline"][-1]
    metric = headline(target)
    figure = new_figure(6.4, 4.2, dpi=160)
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
    _set_log_ticks(axes.yaxis, high < 4 * low)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{metric} of {target.replace('_', ' ')}" + (f" [{unit}]" if unit else ""))
    set_title(axes, title, 11)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    save_figure(figure, path)


#: Contenders also differ by marker, for readers without colour.
COLORS = ("#1f6fb2", "#d9662c", "#2f8f5b", "#8e4aa8", "#b8860b", "#c0395b", "#3aa6a6", "#5b5f97")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_comparison(path: Path, comparison: Comparison, folder: Path) -> None:
    """Draw validation errors against training time, and test errors against inference time, for the first target.

    Args:
        path: path of the PNG file.
        comparison: comparison to draw.
        folder: folder of the run folders with their logs.
    """
    target = next(iter(comparison.units))
    unit = comparison.units[target]
    column = f"valid {headline(target)} {target}" + (f" [{unit}]" if unit else "")
    figure = new_figure(9.6, 4.6)
    learning, inference = figure.subplots(1, 2)
    values, speeds = [], []
    for index, entry in enumerate(comparison.contenders):
        if entry.failure:
            continue
        color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
        rows = [row for row in read_log(folder / entry.name / "log.csv") if column in row]
        times, errors = [row["budget seconds"] for row in rows], [row[column] for row in rows]
        few = marker if len(rows) < 8 else None
        learning.plot(times, errors, color=color, linewidth=1.6, marker=few, markersize=5)
        learning.plot(times[-1:], errors[-1:], color=color, marker=marker, markersize=7)
        label = f"{entry.name}: {format_number(entry.errors[target])}, {entry.parameters:,}"
        inference.plot([entry.milliseconds], [entry.errors[target]], marker, color=color, markersize=10, label=label)
        values += [*errors, entry.errors[target]]
        speeds.append(entry.milliseconds)
    if comparison.finished:
        name, value = comparison.finished[0].baselines[target]
        label = f"{name}: {format_number(value)}"
        inference.axhline(value, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)), label=label)
        values.append(value)
    for axes, part in ((learning, "validation"), (inference, "test")):
        style_axes(axes)
        _logarithmic(axes, "y", values)
        axes.set_ylabel(f"{part} {comparison.measure(target)}".replace(" of ", "\nof "))
    learning.set_xlabel("training time [s]")
    learning.set_xlim(0, comparison.budget * 1.04)
    _logarithmic(inference, "x", speeds)
    inference.set_xlabel("inference time [ms per structure]")
    figure.suptitle(comparison.title, x=0.01, ha="left", fontsize=11, color=INK)
    handles, labels = inference.get_legend_handles_labels()
    columns = 1 if len(handles) < 2 else 2
    legend = figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        title=f"recipe: test {comparison.measure(target)}, number of parameters",
        title_fontsize=9,
        alignment="left",
    )
    legend.get_title().set_color(INK)
    save_figure(figure, path)


def _logarithmic(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Make an axis logarithmic, with readable ticks for any range."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    positive = [value for value in values if 0 < value < float("inf")]
    if positive:
        low, high = min(positive) / 1.3, max(positive) * 1.3
        (axes.set_ylim if which == "y" else axes.set_xlim)(low, high)
        _set_log_ticks(axis, high < 6 * low)


def _set_log_ticks(axis: Axis, narrow: bool) -> None:
    """Set readable ticks of a logarithmic axis; on a narrow one ticks at decades would be too few."""
    if narrow:
        axis.set_major_locator(MaxNLocator(6))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
