"""Draw docs/families/egnn.png: the displacements predicted by an EGNN rotate with the molecule.

python docs/pictures/egnn.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.models import EGNN, Positions

INK, BLUE, ORANGE, GREY = "#22303c", "#1f6fb2", "#d9662c", "#8a97a3"
COLORS = {1: "#b9c3cc", 6: "#4b5a67", 7: BLUE, 8: ORANGE}
ANGLE = math.radians(75)
TARGET = Path(__file__).parent.parent / "families" / "egnn.png"

#: A planar molecule (formamide), Å.
ELEMENTS = torch.tensor([6, 8, 7, 1, 1, 1])
POSITIONS = [[0.0, 0.42], [1.2, 0.24], [-0.94, -0.56], [-0.44, 1.43], [-1.92, -0.33], [-0.65, -1.53]]


def network() -> EGNN:
    torch.manual_seed(3)
    model = EGNN([Positions()], width=16, layers=3).double()
    for name, parameter in model.named_parameters():
        if ".pull." in name:
            nn.init.normal_(parameter, std=0.5)
    return model


def main() -> None:
    flat = torch.tensor(POSITIONS, dtype=torch.float64)
    start = torch.cat([flat, torch.zeros(len(flat), 1)], dim=-1)
    rotation = torch.eye(3, dtype=torch.float64)
    cosine, sine = math.cos(ANGLE), math.sin(ANGLE)
    rotation[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    model = network()

    def moved(pos: Tensor) -> Tensor:
        with torch.no_grad():
            return model(Data(z=ELEMENTS, pos=pos))["positions"]

    rotated = start @ rotation.T
    ends = [moved(start), moved(rotated)]
    error = float((ends[1] - ends[0] @ rotation.T).abs().max())

    figure = Figure(figsize=(7.2, 3.7), dpi=110, layout="constrained")
    titles = ["f(x)", "f(Rx); circles: R f(x)"]
    for axes, pos, end, title in zip(figure.subplots(1, 2), [start, rotated], ends, titles, strict=True):
        for i in range(len(pos)):
            for j in range(i):
                if (pos[i] - pos[j]).norm() < 1.6:
                    axes.plot(*zip(pos[i, :2].tolist(), pos[j, :2].tolist()), color=GREY, linewidth=2, zorder=1)
        colors = [COLORS[number] for number in ELEMENTS.tolist()]
        axes.scatter(pos[:, 0], pos[:, 1], s=[130 if n > 1 else 60 for n in ELEMENTS.tolist()], c=colors, zorder=2)
        for a, b in zip(pos.tolist(), end.tolist(), strict=True):
            arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=b[:2], xytext=a[:2], arrowprops=arrow, zorder=3)
        axes.set(xlim=(-2.9, 2.6), ylim=(-2.6, 2.6), aspect="equal", xticks=[], yticks=[])
        axes.set_title(title, fontsize=11, color=INK, loc="left")
        for side in axes.spines.values():
            side.set_color("#dfe4e8")
    expected = ends[0] @ rotation.T
    axes.scatter(expected[:, 0], expected[:, 1], s=55, facecolors="none", edgecolors=ORANGE, linewidths=1.3, zorder=4)
    axes.text(-2.8, -2.45, f"largest difference {error:.0e} Å", fontsize=9, color=INK)
    figure.savefig(TARGET, format="png")


if __name__ == "__main__":
    main()
