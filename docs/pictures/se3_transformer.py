"""Draw docs/families/se3_transformer.png: attention weights are invariant, vector features rotate with the molecule.

python docs/pictures/se3_transformer.py
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch_geometric.data import Data

from geoeq.graph import build_graph
from geoeq.layers.edge_softmax import edge_softmax
from geoeq.layers.irreps.layout import to_channels_last
from geoeq.layers.se3_transformer.edge_basis import EdgeBasis
from geoeq.models import SE3Transformer

INK, BLUE, ORANGE, GREY = "#22303c", "#1f6fb2", "#d9662c", "#8a97a3"
COLORS = {1: "#b9c3cc", 6: "#4b5a67", 7: BLUE, 8: ORANGE}
ANGLE = math.radians(75)
TARGET = Path(__file__).parent.parent / "families" / "se3_transformer.png"
CENTER, HEAD = 0, 1

#: A planar molecule (formamide), Å.
ELEMENTS = torch.tensor([6, 8, 7, 1, 1, 1])
POSITIONS = [[0.0, 0.42], [1.2, 0.24], [-0.94, -0.56], [-0.44, 1.43], [-1.92, -0.33], [-0.65, -1.53]]


def look(model: SE3Transformer, pos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a vector of each atom, and the senders and attention weights of the edges into one atom."""
    data = Data(z=ELEMENTS, pos=pos)
    with torch.no_grad():
        vectors = model.encode(data, build_graph(data, model.cutoff, model.lmax))[:, -3:]
        graph = build_graph(data, model.cutoff, model.lmax)
        graph = dataclasses.replace(graph, edge_attr=model.edge_embedding(data, graph))
        basis = EdgeBasis(graph, model.cutoff)
        layer, x = model.block.layers[0], model.embedding(data)
        blocks = to_channels_last(x, layer.blocks)
        message = layer.messages(blocks, basis)[0]
        query = (blocks[0] @ layer.query["0"].T).index_select(0, graph.receiver)
        width = layer.keys[0]
        products = (query * message[..., width:]).sum(1).view(-1, layer.heads, width // layer.heads).sum(-1)
        weights = edge_softmax(products * layer.scale, graph, basis.envelope)[:, HEAD]
    here = graph.receiver == CENTER
    return vectors, graph.sender[here], weights[here]


def main() -> None:
    flat = torch.tensor(POSITIONS, dtype=torch.float64)
    start = torch.cat([flat, torch.zeros(len(flat), 1)], dim=-1)
    rotation = torch.eye(3, dtype=torch.float64)
    cosine, sine = math.cos(ANGLE), math.sin(ANGLE)
    rotation[:2, :2] = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    torch.manual_seed(7)
    arguments = {"width": 16, "layers": 2, "lmax": 2, "attention_heads": 4, "cutoff": 5.0}
    model = SE3Transformer([], irreps_out="4x0e + 1x1o", **arguments).double()
    with torch.no_grad():
        model.block.layers[0].query["0"].mul_(6)  # peaked attention, as after training

    rotated = start @ rotation.T
    features = [look(model, start), look(model, rotated)]
    error = float((features[1][0] - features[0][0] @ rotation.T).abs().max() / features[0][0].abs().max())
    scale = 0.9 / float(features[0][0].norm(dim=-1).max())

    figure = Figure(figsize=(7.2, 4.0), dpi=110, layout="constrained")
    titles = ["f(x)", "f(Rx); circles: R f(x)"]
    for axes, pos, (vectors, senders, weights), title in zip(
        figure.subplots(1, 2), [start, rotated], features, titles, strict=True
    ):
        for sender, weight in zip(senders.tolist(), weights.tolist(), strict=True):
            ends = zip(pos[CENTER, :2].tolist(), pos[sender, :2].tolist(), strict=True)
            axes.plot(*ends, color=BLUE, alpha=0.45, linewidth=0.5 + 18 * weight, solid_capstyle="butt", zorder=1)
        edges = [INK if n == CENTER else "white" for n in range(len(pos))]
        colors = [COLORS[number] for number in ELEMENTS.tolist()]
        sizes = [150 if number > 1 else 80 for number in ELEMENTS.tolist()]
        axes.scatter(pos[:, 0], pos[:, 1], s=sizes, c=colors, edgecolors=edges, linewidths=2, zorder=2)
        tips = pos + scale * vectors
        for a, b in zip(pos.tolist(), tips.tolist(), strict=True):
            arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", xy=b[:2], xytext=a[:2], arrowprops=arrow, zorder=3)
        axes.set(xlim=(-2.9, 2.6), ylim=(-3.0, 2.5), aspect="equal", xticks=[], yticks=[])
        axes.set_title(title, fontsize=11, color=INK, loc="left")
        for side in axes.spines.values():
            side.set_color("#dfe4e8")
    expected = (start + scale * features[0][0]) @ rotation.T
    axes.scatter(expected[:, 0], expected[:, 1], s=55, facecolors="none", edgecolors=ORANGE, linewidths=1.3, zorder=4)
    axes.text(-2.8, -2.9, f"largest difference {error:.0e} of the longest vector", fontsize=9, color=INK)
    figure.savefig(TARGET, format="png")


if __name__ == "__main__":
    main()
