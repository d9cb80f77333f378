"""Draw docs/families/frames.png: at a crossing of two moments, f jumps with principal axes, not with weighted frames.

python docs/pictures/frames.py
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from geoeq.models import FrameAveraging

INK, BLUE, ORANGE, GREY = "#22303c", "#1f6fb2", "#d9662c", "#8a97a3"
TARGET = Path(__file__).parent.parent / "families" / "frames.png"
SEED = 4


class PointNet(nn.Module):
    """A network of absolute coordinates."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(SEED)
        self.layers = nn.Sequential(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1))
        nn.init.normal_(self.layers[0].weight)
        self.double()

    def forward(self, data: Batch) -> dict[str, Tensor]:
        values = self.layers(data.pos).squeeze(-1)
        return {"energy": values.new_zeros(len(data.ptr) - 1).index_add(0, data.batch, values)}


def path(strains: Tensor, degrees: float = 0.0) -> Batch:
    """Return seven points with unit moments, stretched by 1 + s and 1 - s along two perpendicular directions."""
    pos = torch.randn(7, 3, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    pos = pos - pos.mean(0)
    values, vectors = torch.linalg.eigh(pos.T @ pos / 7)
    pos = pos @ vectors @ torch.diag(values**-0.5)
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    along = torch.stack([angle.cos(), angle.sin(), 0 * angle])
    stretch = 2 * along[:, None] * along - torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    third = torch.diag(torch.tensor([1.0, 1.0, 0.6], dtype=torch.float64))
    return Batch.from_data_list([Data(pos=pos @ (third + s * stretch)) for s in strains])


def energies(frames: str, batch: Batch) -> Tensor:
    with torch.no_grad():
        return FrameAveraging(PointNet(), frames=frames)(batch)["energy"]


def style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(color="#eef1f4")
    for side in axes.spines.values():
        side.set_color("#dfe4e8")


def main() -> None:
    strains = torch.linspace(-0.3, 0.3, 300, dtype=torch.float64)  # without 0
    figure = Figure(figsize=(9.6, 3.4), dpi=100, layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for frames, color, label in (("full", ORANGE, "principal axes"), ("weighted", BLUE, "weighted frames")):
        values = energies(frames, path(strains))
        for side in (strains < 0, strains > 0):
            shown = label if bool(side[-1]) else None
            left.plot(strains[side], values[side], color=color, linewidth=1.6, label=shown)
    left.legend(frameon=False, fontsize=9)
    left.set_xlabel("strain s (two moments are equal at 0)", fontsize=9)
    style(left, "f along a path")

    batch = path(strains)
    values = torch.stack([torch.linalg.eigvalsh(g.pos.T @ g.pos / 7).flip(0) for g in batch.to_data_list()])
    for column, color in zip(values.T, (INK, BLUE, GREY), strict=True):
        middle.plot(strains, column, color=color, linewidth=1.4)
    middle.set_xlabel("strain s", fontsize=9)
    style(middle, "principal moments")

    steps = torch.logspace(-8, -1, 15, dtype=torch.float64)
    for frames, color in (("full", ORANGE), ("weighted", BLUE)):
        changes = (energies(frames, path(steps)) - energies(frames, path(-steps))).abs()
        right.loglog(steps, changes, color=color, marker="o", markersize=3.5, linewidth=1.2)
    right.set_xlabel("strain s", fontsize=9)
    style(right, "|f(s) - f(-s)|")
    figure.savefig(TARGET, format="png")


if __name__ == "__main__":
    main()
