"""Plot of a calibration: errors against estimates, and observed against expected fractions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from geoeq.plots import BLUE, GREY, INK, ORANGE, new_figure, save_figure, set_title, style_axes
from geoeq.uncertainty.calibration import measure_calibration, observed_fractions
from geoeq.uncertainty.residuals import Residuals

__all__ = ["draw_calibration"]

#: Fraction of errors -> quantile of the absolute value of a Gaussian, in standard deviations.
_QUANTILES = {"50%": 0.6745, "68%": 1.0, "95%": 1.96, "99.7%": 2.968}

#: Largest number of errors drawn, and number of equally large groups whose quantiles are drawn.
_DRAWN, _GROUPS = 4000, 8

_COLORS = {"valid": ORANGE, "test": BLUE}


def draw_calibration(
    path: Path, residuals: Mapping[str, Mapping[str, Residuals]], units: Mapping[str, str], title: str
) -> None:
    """Draw one row per output: errors of test (or valid) on the left, fractions of both on the right.

    Args:
        path: PNG file to write.
        residuals: output -> part of the split -> errors and estimates, in the units.
        units: output -> unit; "1" if dimensionless.
        title: title of the figure.
    """
    figure = new_figure(9.6, 4.5 * len(residuals) + 0.4)
    axes = figure.subplots(len(residuals), 2, squeeze=False)
    for (left, right), (name, parts) in zip(axes, residuals.items(), strict=True):
        part = "test" if "test" in parts else "valid"
        _draw_errors(left, parts[part], name, units[name], part)
        _draw_fractions(right, parts)
    save_figure(figure, path, title)


def _draw_errors(axes: Axes, residuals: Residuals, name: str, unit: str, part: str) -> None:
    """Draw absolute errors against estimates on log scales, with the quantiles of a Gaussian."""
    style_axes(axes)
    sizes, deviations = np.abs(residuals.errors), residuals.deviations
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
    _draw_group_quantiles(axes, sizes, deviations)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, ceiling))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(FuncFormatter(_minor_label))
        axis.set_tick_params(which="minor", labelsize=7, labelcolor=INK, color=GREY)
    words = name.replace("_", " ") + (" (components)" if name in ("forces", "stress", "dipole") else "")
    suffix = "" if unit == "1" else f" [{unit}]"
    axes.set_xlabel(f"estimated standard deviation σ{suffix}")
    axes.set_ylabel(f"absolute error{suffix}")
    set_title(axes, f"{words}, {part}: {len(sizes):,} errors")
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left")


def _minor_label(value: float, _: int) -> str:
    """Label minor ticks at 2 and 5 of each decade."""
    mantissa = value / 10 ** math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:g}" if round(mantissa, 6) in (2, 5) else ""


def _draw_group_quantiles(axes: Axes, sizes: np.ndarray, deviations: np.ndarray) -> None:
    groups = np.array_split(np.argsort(deviations, kind="stable"), min(_GROUPS, max(1, len(sizes) // 20)))
    middle = [float(np.median(deviations[group])) for group in groups]
    for fraction, marker in ((0.68, "o"), (0.95, "^")):
        measured = [float(np.quantile(sizes[group], fraction)) for group in groups]
        label = f"{round(100 * fraction)}% quantile of the errors"
        axes.plot(middle, measured, marker, color=INK, markersize=4.5, label=label, zorder=3)


def _draw_fractions(axes: Axes, parts: Mapping[str, Residuals]) -> None:
    """Draw the observed fraction of errors within an interval against the expected one."""
    style_axes(axes)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    for part, residuals in parts.items():
        expected, observed = observed_fractions(residuals.errors, residuals.deviations)
        measured = measure_calibration(residuals.errors, residuals.deviations)
        label = (
            f"{part}: area {measured.miscalibration:.3f}, Spearman {measured.spearman:.2f},\n"
            f"median factor {measured.median_factor:.2f}"
        )
        axes.plot(expected, observed, color=_COLORS[part], linewidth=1.6, label=label)
        if part == "test" or len(parts) == 1:
            axes.fill_between(expected, expected, observed, color=_COLORS[part], alpha=0.12, linewidth=0)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xlabel("expected fraction of errors within the interval")
    axes.set_ylabel("observed fraction")
    set_title(axes, "above the diagonal: errors smaller than estimated")
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="lower right")
