"""Draw docs/families/which_symmetry.png from benchmarks/results/symmetry.json: accuracy against cost and symmetry.

python docs/pictures/symmetry.py
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geoeq.training.evaluation.training_plots import MARKERS

INK = "#22303c"
ROOT = Path(__file__).parent.parent.parent
TARGET = ROOT / "docs" / "families" / "which_symmetry.png"

#: Colour by the origin of the symmetry, the first words of a row's description.
COLORS = {"built in": "#1f6fb2", "8 frames": "#3aa6a6", "wrapped": "#2f8f5b", "learned": "#b8860b", "none": "#d9662c"}
OTHER = "#8e4aa8"

#: Markers of the rows of one colour.
SHAPES = (*MARKERS, "<", ">", "h", "p", "d", "H")

#: Lower limit of the plotted equivariance errors: float64 rounding.
SMALLEST = 1e-16


def color_of(row: dict[str, Any]) -> str:
    return next((color for word, color in COLORS.items() if row["symmetry"].startswith(word)), OTHER)


def style(axes: Axes, xlabel: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(xlabel, fontsize=8, color=INK)
    axes.tick_params(which="both", labelsize=7, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e4e8eb", linewidth=0.6)


def main() -> None:
    tasks: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "symmetry.json").read_text())["tasks"]
    figure = Figure(figsize=(8.6, 3.4 * len(tasks) + 1.3), dpi=100, layout="constrained")
    drawn: dict[str, Any] = {}
    used: Counter[str] = Counter()
    for panels, task in zip(figure.subplots(len(tasks), 2, squeeze=False, sharey="row"), tasks.values(), strict=True):
        left, right = panels
        finished = [row for row in task["rows"] if "failure" not in row]
        for row in finished:
            color = color_of(row)
            if row["name"] in drawn:
                marker = drawn[row["name"]].get_marker()
            else:
                marker = SHAPES[used[color]]
                used[color] += 1
            look = {"marker": marker, "color": color, "linestyle": "none", "markersize": 7, "alpha": 0.85}
            (handle,) = left.plot(row["step"], row["error"], **look)
            right.plot(max(row["rotation"], SMALLEST), row["error"], **look)
            drawn.setdefault(row["name"], handle)
        style(left, "training step [ms]")
        unit = f" [{task['unit']}]" if task["unit"] else ""
        style(right, f"largest error under rotation{unit}")
        left.set_ylabel(f"test {task['measure']}", fontsize=8, color=INK)
        left.set_title(task["title"], fontsize=8, color=INK, loc="left")
    figure.legend(
        drawn.values(), drawn.keys(), loc="outside lower left", ncols=3, frameon=False, fontsize=7, labelcolor=INK
    )
    figure.savefig(TARGET, metadata={"Software": None})


if __name__ == "__main__":
    main()
