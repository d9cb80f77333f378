"""The picture of a calibration: errors against their estimates, and how many lie within which interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from geoeq.files import atomic_write
from geoeq.plots import BLUE, GREY, INK, ORANGE, style_axes
from geoeq.uncertainty.calibration import measure_calibration, observed_fractions
from geoeq.uncertainty.residuals import ErrorsMade

__all__ = ["draw_calibration"]

#: Where a part of the errors lies below, in estimates: quantiles of the absolute value of a Gaussian.
_QUANTILES = {"50%": 0.6745, "68%": 1.0, "95%": 1.96, "99.7%": 2.968}

#: Errors that are drawn, and groups of equal size whose quantiles are.
_DRAWN, _GROUPS = 4000, 8

_COLORS = {"valid": ORANGE, "test": BLUE}


def draw_calibration(
    path: Path, made: Mapping[str, Mapping[str, ErrorsMade]], units: Mapping[str, str], title: str
) -> None:
    """Draw a row for each output: to the left of test (of valid without it), to the right of both.

    Args:
        path: the PNG.
        made: output -> part -> errors and estimates, in the units.
        units: output -> unit; "1" for none.
        title: what is shown.
    """
    figure = Figure(figsize=(9.6, 4.5 * len(made) + 0.4), dpi=150, layout="constrained")
    axes = figure.subplots(len(made), 2, squeeze=False)
    for (left, right), (name, parts) in zip(axes, made.items(), strict=True):
        part = "test" if "test" in parts else "valid"
        _errors(left, parts[part], name, units[name], part)
        _fractions(right, parts, name)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _errors(axes: Axes, made: ErrorsMade, name: str, unit: str, part: str) -> None:
    """Absolute errors against estimates, both on log scales, with the quantiles that a Gaussian would have."""
    style_axes(axes)
    sizes, deviations = np.abs(made.errors), made.deviations
    chosen = np.random.default_rng(0).permutation(len(sizes))[:_DRAWN]
    low, high = float(deviations.min()) / 1.15, float(deviations.max()) * 1.15
    floor = max(float(np.quantile(sizes, 0.005)), 1e-3 * float(deviations.min()))
    ceiling = 1.3 * max(float(sizes.max()), _QUANTILES["99.7%"] * high)
    dots = float(np.clip(2500 / max(len(chosen), 1), 2, 20))
    axes.scatter(
        deviations[chosen],
        sizes[chosen].clip(min=floor),
        s=dots,
        color=_COLORS[part],
        alpha=0.55 if len(chosen) < 1000 else 0.25,
        linewidths=0,
        rasterized=True,
    )
    ends = np.array([low, high])
    for label, factor in _QUANTILES.items():
        axes.plot(ends, factor * ends, color=GREY, linewidth=1.4 if label == "68%" else 0.9, zorder=1)
        axes.annotate(
            label, (high, factor * high), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8, color=GREY
        )
    _group_quantiles(axes, sizes, deviations)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, ceiling))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(_few))
        axis.set_tick_params(which="minor", labelsize=7, labelcolor=INK, color=GREY)
    words = name.replace("_", " ") + (", components" if name in ("forces", "stress", "dipole") else "")
    suffix = "" if unit == "1" else f" [{unit}]"
    axes.set_xlabel(f"estimate σ of {words}{suffix}")
    axes.set_ylabel(f"error that was made{suffix}")
    axes.set_title(f"{words}, {part}: {len(sizes):,}", loc="left", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left")


def _few(value: float, _: int) -> str:
    """Minor ticks are labelled at 2 and 5 of a decade."""
    mantissa = value / 10 ** math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:g}" if round(mantissa, 6) in (2, 5) else ""


def _group_quantiles(axes: Axes, sizes: np.ndarray, deviations: np.ndarray) -> None:
    groups = np.array_split(np.argsort(deviations, kind="stable"), min(_GROUPS, max(1, len(sizes) // 20)))
    middle = [float(np.median(deviations[group])) for group in groups]
    for part, marker in ((0.68, "o"), (0.95, "^")):
        measured = [float(np.quantile(sizes[group], part)) for group in groups]
        label = f"{round(100 * part)}% of the errors lie below"
        axes.plot(middle, measured, marker, color=INK, markersize=4.5, label=label, zorder=3)


def _fractions(axes: Axes, parts: Mapping[str, ErrorsMade], name: str) -> None:
    """The part of errors within the interval that should hold a part p."""
    style_axes(axes)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for part, made in parts.items():
        expected, observed = observed_fractions(made.errors, made.deviations)
        found = measure_calibration(made.errors, made.deviations)
        label = (
            f"{part}: area {found.miscalibration:.3f}, Spearman {found.spearman:.2f},\n"
            f"by the median σ × {found.median_factor:.2f}"
        )
        axes.plot(expected, observed, color=_COLORS[part], linewidth=1.6, label=label)
        if part == "test" or len(parts) == 1:
            axes.fill_between(expected, expected, observed, color=_COLORS[part], alpha=0.12, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("part of the errors that should lie within")
    axes.set_ylabel("part that does")
    axes.set_title("above the line: errors are smaller than expected", loc="left", fontsize=10, color=INK)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower right")
