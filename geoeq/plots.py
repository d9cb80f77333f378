"""Colours and axis style of all plots."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BLUE", "GREY", "GRID", "INK", "ORANGE", "style_axes"]

INK, GRID = "#22303c", "#dfe4e8"
BLUE, ORANGE, GREY = "#1f6fb2", "#d9662c", "#8a97a3"


def style_axes(axes: Axes) -> None:
    """Apply the style of all plots: a light grid and two spines."""
    axes.set_axisbelow(True)
    axes.grid(True, color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
