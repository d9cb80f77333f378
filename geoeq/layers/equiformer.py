"""The block of Equiformer."""

from __future__ import annotations

from typing import Literal, Self, get_args

from e3nn import o3
from torch import Tensor

from geoeq.errors import InputError, unknown_name
from geoeq.graph import Graph
from geoeq.layers.graph_attention import EquivariantGraphAttention
from geoeq.layers.irreps.dropout import StochasticDepth
from geoeq.layers.irreps.feed_forward import GatedFeedForward
from geoeq.layers.irreps.graph_norms import EquivariantGraphNorm
from geoeq.layers.irreps.linear import Linear
from geoeq.layers.irreps.norms import EquivariantLayerNorm
from geoeq.layers.layer import Layer

__all__ = ["EquiformerBlock", "EquiformerNorm", "NormKind"]

#: of a node by itself, of its graph with a learned share of the mean, of its graph with the whole mean.
NormKind = Literal["layer", "graph", "instance"]


class EquiformerNorm(Layer):
    """One of the normalisations that Equiformer may have, all called as layers.

    Args:
        irreps: of input and output.
        kind: "layer" (``EquivariantLayerNorm``), "graph" or "instance" (``EquivariantGraphNorm`` with a learned
            share of the mean, or the whole).

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: the kind is unknown.
    """

    def __init__(self, irreps: o3.Irreps | str, kind: NormKind = "layer") -> None:
        super().__init__()
        if kind not in get_args(NormKind):
            raise InputError(unknown_name("norm", kind, get_args(NormKind)))
        self.irreps_in = self.irreps_out = o3.Irreps(irreps)
        self.alone = EquivariantLayerNorm(irreps) if kind == "layer" else None
        self.over_graph = None if kind == "layer" else EquivariantGraphNorm(irreps, shift=kind == "graph")

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 2x1o", "instance")

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        result: Tensor = x
        if self.alone is not None:
            result = self.alone(x)
        if self.over_graph is not None:
            result = self.over_graph(x, graph)
        return result


class EquiformerBlock(Layer):
    """Attention and a feed-forward network, each after a norm and added to its input.

    Args:
        irreps: of the input.
        attention: made for these irreps.
        irreps_middle: inside the feed-forward network.
        irreps_out: of the output; None: as the input. Where it is another, the input passes through a linear map.
        norm: "layer", "graph" or "instance".
        dropout: of the feed-forward network's result.
        stochastic_depth: probability of leaving a branch out, for each graph, in training.

    Shapes:
        x: [N, irreps.dim]; ``graph.edge_attr`` as the attention needs it. Returns [N, irreps_out.dim].

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.1, figure 1.
    """

    def __init__(
        self,
        attention: EquivariantGraphAttention,
        irreps_middle: o3.Irreps | str,
        irreps_out: o3.Irreps | str | None = None,
        norm: NormKind = "layer",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        irreps = self.irreps_in = attention.irreps_in
        self.irreps_out = irreps if irreps_out is None else o3.Irreps(irreps_out)
        self.group, self.edge_width = attention.group, attention.edge_width
        self.norm_1, self.attention = EquiformerNorm(irreps, norm), attention
        self.norm_2 = EquiformerNorm(irreps, norm)
        self.feed_forward = GatedFeedForward(irreps, irreps_middle, self.irreps_out, dropout)
        self.shortcut = None if self.irreps_out == irreps else Linear(irreps, self.irreps_out)
        self.drop_1 = StochasticDepth(irreps, stochastic_depth)
        self.drop_2 = StochasticDepth(self.irreps_out, stochastic_depth)

    @classmethod
    def example(cls) -> Self:
        return cls(EquivariantGraphAttention.example(), "4x0e + 2x1o + 2x1e", "3x0e + 2x1o")

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        x = x + self.drop_1(self.attention(self.norm_1(x, graph), graph), graph)
        change = self.drop_2(self.feed_forward(self.norm_2(x, graph)), graph)
        result: Tensor = (x if self.shortcut is None else self.shortcut(x)) + change
        return result
