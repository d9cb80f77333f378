"""Draw docs/families/equiformer_v2.png: equivariance error of a nonlinearity on a grid against its resolution.

python docs/pictures/equiformer_v2.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from geoeq.layers import S2Activation
from geoeq.symmetry import equivariance_errors

INK, GREY = "#22303c", "#8a97a3"
COLORS = {1: "#1f6fb2", 2: "#4aa3a2", 4: "#d9662c", 6: "#8b3a62"}
RESOLUTIONS = range(4, 42, 2)
TARGET = Path(__file__).parent.parent / "families" / "equiformer_v2.png"


def error(lmax: int, resolution: int) -> float:
    layer = S2Activation(lmax, 8, resolution).double()
    return max(equivariance_errors(layer, symmetries=("rotation",), samples=4).values())


def main() -> None:
    torch.manual_seed(0)
    figure = Figure(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    for lmax, color in COLORS.items():
        resolutions = [count for count in RESOLUTIONS if count >= 2 * (lmax + 1)]
        errors = [error(lmax, count) for count in resolutions]
        axes.semilogy(resolutions, errors, "o-", color=color, markersize=4, linewidth=1.6)
        axes.text(resolutions[-1] + 0.5, errors[-1], f"lmax {lmax}", color=color, va="center", fontsize=10)
    axes.axvline(18, color=GREY, linewidth=1, linestyle=":")
    axes.text(18.3, 4e-16, "published", color=GREY, fontsize=9)
    axes.set(
        xlim=(3, 46),
        ylim=(2e-16, 2),
        xlabel="number of latitudes (= longitudes)",
        ylabel="relative error under rotation",
    )
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(TARGET, format="png")


if __name__ == "__main__":
    main()
