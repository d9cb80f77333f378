"""Draw docs/families/tensor_products.png: expressivity and cost of the products.

Counts are computed here; times are read from benchmarks/results/products.md.

python docs/pictures/tensor_products.py
"""

from __future__ import annotations

import re
from pathlib import Path

from matplotlib.figure import Figure

from geoeq.layers.products import edge_product

INK, BLUE, ORANGE, GREY, GREEN = "#22303c", "#1f6fb2", "#d9662c", "#8a97a3", "#3c8d5a"
ROOT = Path(__file__).parent.parent.parent
TARGET = ROOT / "docs" / "families" / "tensor_products.png"
LMAX = range(1, 7)

#: Name in the tables, product, group, colour and line style.
PRODUCTS = [
    ("Clebsch-Gordan, SE(3)", "clebsch_gordan", "SE(3)", INK, "-"),
    ("Clebsch-Gordan, E(3)", "clebsch_gordan", "E(3)", INK, "--"),
    ("edge frame, SE(3)", "edge_frame", "SE(3)", BLUE, "-"),
    ("edge frame, E(3)", "edge_frame", "E(3)", BLUE, "--"),
    ("Gaunt, Fourier", "gaunt_fourier", "E(3)", ORANGE, ":"),
    ("Gaunt, grid", "gaunt_grid", "E(3)", GREEN, "--"),
]


def measured() -> dict[str, list[float]]:
    """Return the milliseconds forward and backward of each product."""
    text = (ROOT / "benchmarks" / "results" / "products.md").read_text()
    table = text.split("| forward and backward, ms |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", table, flags=re.MULTILINE)
    return {name: [float(value) for value in values.split(" | ")] for name, values in rows if name != "---"}


def main() -> None:
    times = measured()
    figure = Figure(figsize=(7.2, 3.5), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, name, group, color, line in PRODUCTS:
        style = {"color": color, "linestyle": line, "marker": "o", "markersize": 3, "label": label}
        left.plot(LMAX, [edge_product(name, 1, lmax, group=group).expressivity for lmax in LMAX], **style)
        right.plot(LMAX, times[label], **style)
    left.set_title("free parameters per edge and channel", fontsize=9, color=INK)
    right.set_title("forward and backward [ms]", fontsize=9, color=INK)
    for axes in (left, right):
        axes.set_yscale("log")
        axes.set_xlabel("L", fontsize=8, color=INK)
        axes.tick_params(labelsize=8, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e8eb", linewidth=0.6)
    left.legend(fontsize=7, frameon=False)
    figure.savefig(TARGET, metadata={"Software": None})


if __name__ == "__main__":
    main()
