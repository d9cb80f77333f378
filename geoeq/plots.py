"""Shared style of plots and tables: colours, axes, figures that are written atomically, table layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geoeq.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from rich.table import Table

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "GRID",
    "INK",
    "ORANGE",
    "new_figure",
    "new_table",
    "save_figure",
    "set_title",
    "style_axes",
]

INK, GRID = "#22303c", "#dfe4e8"
BLUE, ORANGE, GREY, GREEN = "#1f6fb2", "#d9662c", "#8a97a3", "#3b8f5a"


def new_figure(width: float, height: float, *, dpi: int = 150) -> Figure:
    """Return an empty figure of this size in inches that is laid out without overlaps."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def style_axes(axes: Axes) -> None:
    """Apply the common style: a light grid and two spines."""
    axes.set_axisbelow(True)
    axes.grid(True, color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(color=GREY, labelcolor=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def set_title(axes: Axes, text: str, size: float = 10) -> None:
    """Set the title of one panel, left-aligned."""
    axes.set_title(text, loc="left", fontsize=size, color=INK)


def save_figure(figure: Figure, path: str | Path, title: str | None = None) -> None:
    """Write a figure as PNG, with a left-aligned title above all panels; readers never see a partial file."""
    path = Path(path)
    if title is not None:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def new_table(title: str, *columns: str) -> Table:
    """Return an empty rich table: the first column holds names, the others right-aligned numbers."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold", header_style="")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table
