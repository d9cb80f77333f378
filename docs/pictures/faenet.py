"""Draw docs/families/faenet.png: FAENet is not invariant under rotation, nor under batching with the published norm.

python docs/pictures/faenet.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch_geometric.data import Batch, Data

from geoeq.layers.faenet import NodeNorm
from geoeq.models import EveryLayerScalar, FAENet
from geoeq.symmetry import random_batch

INK, BLUE, ORANGE, GREY = "#22303c", "#1f6fb2", "#d9662c", "#8a97a3"
TARGET = Path(__file__).parent.parent / "families" / "faenet.png"

#: A planar molecule (formamide), Å.
ELEMENTS = torch.tensor([6, 8, 7, 1, 1, 1])
POSITIONS = [[0.0, 0.42], [1.2, 0.24], [-0.94, -0.56], [-0.44, 1.43], [-1.92, -0.33], [-0.65, -1.53]]


def network(norm: NodeNorm) -> FAENet:
    torch.manual_seed(3)
    model = FAENet([EveryLayerScalar("energy")], 32, 32, layers=3, norm=norm, cutoff=5.0, num_basis=16).double()
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.dim() == 2:
            nn.init.normal_(parameter, std=1.0 / math.sqrt(parameter.shape[1]))
    return model


def energies(model: FAENet, graphs: list[Data]) -> Tensor:
    with torch.no_grad():
        energy: Tensor = model(Batch.from_data_list(graphs))["energy"]
    return energy


def main() -> None:
    flat = torch.tensor(POSITIONS, dtype=torch.float64)
    start = torch.cat([flat, torch.zeros(len(flat), 1)], dim=-1)

    def rotated(angle: float) -> Data:
        cosine, sine = math.cos(angle), math.sin(angle)
        rotation = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)
        return Data(z=ELEMENTS, pos=start @ rotation.T)

    others = [Data(z=graph.z, pos=graph.pos) for graph in random_batch((6,) * 24, seed=1).to_data_list()]
    figure = Figure(figsize=(9.6, 3.2), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    angles = torch.linspace(0, 360, 121)
    for norm, color, label in (
        ("graph", BLUE, "norm over each graph"),
        ("batch", ORANGE, "over the batch, as published"),
    ):
        model = network(norm)
        spread = energies(network("graph"), others).std()
        alone = energies(model, [rotated(0)])[0]
        if norm == "graph":
            around = energies(model, [rotated(math.radians(float(angle))) for angle in angles])
            left.plot(angles, (around - alone) / spread, color=color, linewidth=1.6)
        moved = [energies(model, [rotated(0), *others[k : k + 3]])[0] - alone for k in range(len(others) - 3)]
        right.plot(torch.stack(moved) / spread, color=color, linewidth=1.4, marker="o", markersize=3.5, label=label)
    left.axhline(0, color=GREY, linewidth=1, linestyle="--")
    left.set_xlabel("rotation angle [°]", fontsize=9)
    left.set_title("energy of the rotated molecule", fontsize=10, color=INK, loc="left")
    left.set_xticks([0, 90, 180, 270, 360])
    right.set_xlabel("batch (the molecule and three others)", fontsize=9)
    right.set_title("energy in a batch minus energy alone", fontsize=10, color=INK, loc="left")
    right.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
    right.margins(y=0.25)
    right.set_xticks([0, 5, 10, 15, 20])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, colors=INK)
    figure.savefig(TARGET)


if __name__ == "__main__":
    main()
