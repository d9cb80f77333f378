"""The other parts of Equiformer: its block, and what a node knows of its edges before the first block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import InputError, unknown_name
from geoeq.graph import Graph
from geoeq.layers.dropout import EquivariantDropout, StochasticDepth
from geoeq.layers.envelope import PolynomialEnvelope
from geoeq.layers.gate import Gate
from geoeq.layers.graph_attention import EquivariantGraphAttention
from geoeq.layers.graph_norms import EquivariantGraphNorm
from geoeq.layers.layer import Layer, Rowwise
from geoeq.layers.layout import irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.linear import Linear
from geoeq.layers.norms import EquivariantLayerNorm
from geoeq.layers.radial_network import RadialNetwork
from geoeq.layers.tensor_paths import depthwise_paths, harmonics_group

__all__ = ["DegreeEmbedding", "EquiformerBlock", "EquiformerNorm", "GatedFeedForward", "NormKind"]

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


class GatedFeedForward(Rowwise):
    """``W_2 Gate(W_1 x)``.

    Args:
        irreps: of the input.
        irreps_middle: of the gated features.
        irreps_out: of the output; None: as the input.
        dropout: of whole copies of irreps of the result, in training.

    Shapes:
        x: [N, irreps.dim]. Returns [N, irreps_out.dim].

    Raises:
        InputError: an irrep cannot be reached.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.3.
    """

    def __init__(
        self,
        irreps: o3.Irreps | str,
        irreps_middle: o3.Irreps | str,
        irreps_out: o3.Irreps | str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.irreps_in = o3.Irreps(irreps)
        self.irreps_out = self.irreps_in if irreps_out is None else o3.Irreps(irreps_out)
        self.gate = Gate(irreps_middle)
        self.first = Linear(self.irreps_in, self.gate.irreps_in)
        self.second = Linear(self.gate.irreps_out, self.irreps_out)
        self.dropout = EquivariantDropout(self.irreps_out, dropout)

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 2x1o + 1x2e", "6x0e + 3x1o + 2x2e", "3x0e + 2x1o")

    def forward(self, x: Tensor) -> Tensor:
        blocks = self.gate.on_blocks(self.first.on_blocks(to_channels_last(x, self.first.blocks_in)))
        result: Tensor = self.dropout(to_e3nn_layout(self.second.on_blocks(blocks)))
        return result


class DegreeEmbedding(Layer):
    """Adds to each node how many edges it has, how long and in which directions.

    ``x_i + (1 / sqrt(n)) Σ_j (W (w(r_ij) Y(r_ij)) + b)``, w a network of the distance.

    Args:
        irreps: of input and output.
        irreps_harmonics: the harmonics that are used.
        edge_width: number K of invariants of an edge (``graph.edge_attr``), as of a radial basis.
        radial_hidden: hidden widths of the network of the distance.
        average_degree: n, the mean number of neighbours in the training set.
        cutoff: in Å; edges then vanish smoothly there. None: as published.

    Shapes:
        x: [N, irreps.dim]; ``graph.edge_attr``: [E, K]. Returns [N, irreps.dim].

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.4 ("edge-degree embedding"). Differs: a constant of each
        channel before w is part of w here.
    """

    def __init__(
        self,
        irreps: o3.Irreps | str,
        irreps_harmonics: o3.Irreps | str,
        edge_width: int,
        radial_hidden: Sequence[int] = (64, 64),
        average_degree: float = 1.0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in = self.irreps_out = irreps = o3.Irreps(irreps)
        harmonics, self.width = o3.Irreps(irreps_harmonics), irreps.count("0e")
        self.group, self.edge_width, self.scale = harmonics_group(harmonics), edge_width, average_degree**-0.5
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        reached = [ir for _, ir in harmonics if ir in irreps]
        scalars = o3.Irreps([(self.width, "0e")])
        self.paths, products = depthwise_paths(scalars, harmonics, reached)
        self.blocks, self.product_blocks = irreps_blocks(irreps), irreps_blocks(products)
        self.targets = tuple(n for n, (_, ir) in enumerate(irreps) if ir in reached)
        self.radial = RadialNetwork(edge_width, radial_hidden, self.paths.weight_numel)
        self.linear = Linear(products, o3.Irreps([irreps[n] for n in self.targets]), bias=False)
        self.bias = nn.Parameter(torch.zeros(self.width))
        self.place = [ir for _, ir in irreps].index(o3.Irrep("0e"))

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 2x0o + 3x1o + 2x1e + 1x2e", "0e + 1o + 2e", 4, [4], 3.0, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        weights = self.radial(graph.edge_attr)  # [E, W]
        degree = graph.degree.unsqueeze(-1)
        if self.envelope is not None:
            envelope = self.envelope(graph.lengths)
            weights, degree = weights * envelope, kernels.segment_sum(envelope, graph)
        ones = x.new_ones(x.shape[0], self.width)
        sums = kernels.tensor_product_conv(ones, graph.harmonics, weights, graph, self.paths)
        parts = sums.split([dim * channels for dim, channels in self.product_blocks], dim=-1)
        shaped = [part.reshape(-1, *block) for part, block in zip(parts, self.product_blocks, strict=True)]

        blocks = to_channels_last(x, self.blocks)
        for n, value in zip(self.targets, self.linear.on_blocks(shaped), strict=True):
            blocks[n] = blocks[n] + self.scale * value
        blocks[self.place] = blocks[self.place] + (self.scale * degree * self.bias).unsqueeze(1)
        return to_e3nn_layout(blocks)


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
