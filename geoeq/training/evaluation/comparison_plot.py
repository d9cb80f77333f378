"""The picture of a comparison: error against training time, and against the time of inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from geoeq.files import atomic_write, read_log
from geoeq.plots import GREY, INK, style_axes
from geoeq.training.evaluation.comparison_table import Comparison
from geoeq.training.evaluation.metrics import headline
from geoeq.units import format_number

__all__ = ["draw_comparison"]

#: Told apart in grey and by those who see fewer colours too: by the marker.
COLORS = ("#1f6fb2", "#d9662c", "#2f8f5b", "#8e4aa8", "#b8860b", "#c0395b", "#3aa6a6", "#5b5f97")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


def draw_comparison(path: Path, comparison: Comparison, folder: Path) -> None:
    """Draw the contenders that finished; the first target, where there are several.

    Args:
        path: the PNG.
        comparison: the results.
        folder: where the run folders are, for their logs.
    """
    target = next(iter(comparison.units))
    unit = comparison.units[target]
    column = f"valid {headline(target)} {target}" + (f" [{unit}]" if unit else "")
    figure = Figure(figsize=(9.6, 4.6), dpi=150, layout="constrained")
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
    for axes, what in ((learning, "validation"), (inference, "test")):
        style_axes(axes)
        _logarithmic(axes, "y", values)
        axes.set_ylabel(f"{what} {comparison.measure(target)}".replace(" of ", "\nof "))
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
        title=f"test {comparison.measure(target)}, and number of parameters",
        title_fontsize=9,
        alignment="left",
    )
    legend.get_title().set_color(INK)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _logarithmic(axes: Axes, which: str, values: Sequence[float]) -> None:
    """A logarithmic axis with readable ticks, however few decades it has."""
    axis = axes.yaxis if which == "y" else axes.xaxis
    (axes.set_yscale if which == "y" else axes.set_xscale)("log")
    positive = [value for value in values if 0 < value < float("inf")]
    if positive:
        low, high = min(positive) / 1.3, max(positive) * 1.3
        (axes.set_ylim if which == "y" else axes.set_xlim)(low, high)
        if high < 6 * low:
            axis.set_major_locator(MaxNLocator(6))
            axis.set_minor_locator(NullLocator())
        else:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
