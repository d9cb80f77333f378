"""The block of Equiformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn import functional

from geoeq import kernels
from geoeq.errors import InputError, TensorError, unknown_name
from geoeq.graph import Graph
from geoeq.layers.chunked import chunked
from geoeq.layers.edge_softmax import edge_softmax
from geoeq.layers.irreps.dropout import EquivariantDropout, StochasticDepth
from geoeq.layers.irreps.feed_forward import GatedFeedForward
from geoeq.layers.irreps.gate import Gate
from geoeq.layers.irreps.layout import irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.irreps.linear import Linear
from geoeq.layers.irreps.norms import EquivariantGraphNorm, EquivariantLayerNorm
from geoeq.layers.layer import Layer, edge_attributes
from geoeq.layers.products.product_linear import product_linear, product_maps
from geoeq.layers.products.tensor_paths import depthwise_paths, harmonics_group
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.layers.radial.radial_network import RadialNetwork

__all__ = ["EquiformerBlock", "EquiformerNorm", "EquivariantGraphAttention", "NormKind"]


#: edges at a time: few enough that their products stay in a cache of some MB, enough for fast matrix products.
CHUNK = 512


class EquivariantGraphAttention(Layer):
    """Attention by a small network of invariants, over messages made by depthwise tensor products.

    With ``⊗_w`` the depthwise product with the harmonics of the edge, its weights w a network of the distance::

        x_ij = W_t x_i + W_s x_j                                 eq. 1
        f_ij = x_ij ⊗_w(r) Y(r_ij)                               eq. 2
        a_ij = softmax_j( a · LeakyReLU(W_a f_ij) )              eq. 3, smooth LeakyReLU, for each head
        v_ij = W_v f_ij,  or  W_v (Gate(W_g f_ij) ⊗ Y(r_ij))     eq. 4, "nonlinear"
        y_i  = W_o Σ_j a_ij v_ij

    Args:
        irreps: of input and output.
        irreps_harmonics: the harmonics that are used; with another parity than (-1)^l "SE(3)" is the group.
        irreps_head: of the values of one head, each irrep once and with some 0e among them.
        num_heads: number H of heads.
        edge_width: number K of invariants of an edge (``graph.edge_attr``), as of a radial basis.
        radial_hidden: hidden widths of the network of the distance.
        irreps_message: of x_ij; None: those of the input.
        nonlinear: values go through a gate and a second tensor product.
        rescale_degree: times the number of neighbours.
        attention_dropout: of attention weights, in training.
        dropout: of whole copies of irreps of the result, in training.
        cutoff: in Å; messages then fall smoothly to zero there. None: as published.

    Shapes:
        x: [N, irreps.dim]; ``graph.edge_attr``: [E, K]. Returns [N, irreps.dim].

    Raises:
        InputError: heads have no 0e, or an irrep cannot be reached.
        TensorError: x, or the edge attributes of the graph, have another width.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.2. Differs: weights of the second tensor product do not
        exist by themselves (they are those of W_v), and W_v comes after the sum; with a cutoff, attention is smooth
        there; products exist for some edges at a time, and are made again for derivatives.
    """

    def __init__(
        self,
        irreps: o3.Irreps | str,
        irreps_harmonics: o3.Irreps | str,
        irreps_head: o3.Irreps | str,
        num_heads: int,
        edge_width: int,
        radial_hidden: Sequence[int] = (64, 64),
        irreps_message: o3.Irreps | str | None = None,
        nonlinear: bool = True,
        rescale_degree: bool = False,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in = self.irreps_out = irreps = o3.Irreps(irreps)
        harmonics, head = o3.Irreps(irreps_harmonics), o3.Irreps(irreps_head)
        message = irreps if irreps_message is None else o3.Irreps(irreps_message)
        if not head.count("0e") or len({ir for _, ir in head}) < len(head):
            raise InputError(f"irreps_head needs each irrep once and 0e among them; found {head}.")
        self.group, self.dim, self.edge_width, self.num_heads = (
            harmonics_group(harmonics),
            irreps.dim,
            edge_width,
            num_heads,
        )
        self.rescale_degree, self.attention_dropout = rescale_degree, attention_dropout
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        scalar, heads = o3.Irrep("0e"), o3.Irreps([(mul * num_heads, ir) for mul, ir in head])

        self.target, self.source = Linear(irreps, message, bias=False), Linear(irreps, message)
        wanted = message if nonlinear else heads
        self.paths, products = depthwise_paths(message, harmonics, list(dict.fromkeys([scalar, *_irreps(wanted)])))
        self.radial = RadialNetwork(edge_width, radial_hidden, self.paths.weight_numel)
        self.score_width = head.count("0e") * num_heads
        self.score = Linear(products, o3.Irreps([(self.score_width, scalar)]))
        self.score_vector = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_heads, head.count("0e"))))
        self.gate = self.gate_input = self.value_paths = None
        if nonlinear:
            self.gate = Gate(message)
            self.gate_input = Linear(products, self.gate.irreps_in)
            keep = list(dict.fromkeys([scalar, *_irreps(heads)]))
            paths, products = depthwise_paths(self.gate.irreps_out, harmonics, keep)
            self.value_paths = paths.with_heads(num_heads)
        self.value = Linear(products, heads)
        self.head_blocks = irreps_blocks(heads)
        self.output = Linear(heads, irreps)
        self.dropout = EquivariantDropout(irreps, dropout)

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 2x1o + 2x1e", "0e + 1o + 2e", "2x0e + 1x1o + 1x1e", 2, 4, [4], cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        if x.shape[-1] != self.dim:
            raise TensorError(f"EquivariantGraphAttention: x has {x.shape[-1]} columns and {self.dim} are needed.")
        blocks = to_channels_last(x, self.target.blocks_in)
        received = kernels.gather(_rows(self.target.on_blocks(blocks)), graph.receiver)
        message = received + kernels.gather(_rows(self.source.on_blocks(blocks)), graph.sender)  # eq. 1
        hidden = self.radial.hidden(edge_attributes(graph, self.edge_width, "EquivariantGraphAttention"))
        made = chunked(self._made, [message, graph.harmonics, hidden], self._parameters_of_edges(), CHUNK)
        scores, values = made.tensor_split([self.score_width], dim=1)
        sums = self._sums(values, self._attention(scores, graph), graph)  # eq. 4
        if self.rescale_degree:
            sums = [value * self._degree(graph) for value in sums]
        result: Tensor = self.dropout(to_e3nn_layout(self.output.on_blocks(sums)))
        return result

    def _parameters_of_edges(self) -> list[Tensor]:
        """What ``_made`` needs besides what belongs to edges."""
        second = self.value if self.gate_input is None else self.gate_input
        found = [*self.radial.last(), *product_maps(self.paths, [self.score, second])]
        return found + [found[0].new_empty(0) if bias is None else bias for bias in (self.score.bias, second.bias)]

    def _made(self, message: Tensor, harmonics: Tensor, hidden: Tensor, *given: Tensor) -> Tensor:
        """Scores and values of edges from the sums of both ends, side by side: all that is large on the way.

        Where there is a second tensor product, what enters it takes the place of values.
        """
        matrix, offset, *maps, score_bias, bias = given
        weights = functional.linear(hidden, matrix, offset)
        linears = [self.score, self.value if self.gate_input is None else self.gate_input]
        biases = [score_bias, bias]
        (scores,), values = product_linear(message, harmonics, weights, self.paths, linears, maps, biases)
        return _rows([scores, *(values if self.gate is None else self.gate.on_blocks(values))])

    def _sums(self, values: Tensor, attention: Tensor, graph: Graph) -> list[Tensor]:
        """``Σ_j a_ij v_ij``, channels last: [N, 2 l + 1, channels of all heads] of each irrep."""
        if self.value_paths is None:
            total = kernels.weighted_sum(values, attention, graph, blocks=self.head_blocks)
            parts = total.split([dim * width for dim, width in self.head_blocks], dim=1)
            return [part.unflatten(1, block) for part, block in zip(parts, self.head_blocks, strict=True)]
        maps = product_maps(self.value_paths, [self.value])
        found = kernels.attended_product(values, graph.harmonics, attention, graph, self.value_paths, maps)
        sums = [found[block] for (block,) in self.value.sources]
        if self.value.bias is not None:
            scalar = self.value.biased.index(True)
            bias = self.value.bias.unflatten(0, (self.num_heads, -1))  # [H, channels of a head]
            weights = kernels.segment_sum(attention, graph).unsqueeze(-1)  # [N, H, 1]
            sums[scalar] = sums[scalar] + (weights * bias).flatten(1).unsqueeze(1)
        return sums

    def _attention(self, scores: Tensor, graph: Graph) -> Tensor:
        scores = scores.unflatten(1, (self.num_heads, -1))
        # Smooth LeakyReLU of slope 0.2: 0.6 x + 0.4 x tanh(x / 2).
        scores = 0.6 * scores + 0.4 * scores * (0.5 * scores).tanh()
        logits = (scores * self.score_vector).sum(-1)  # [E, H] eq. 3
        envelope = None if self.envelope is None else self.envelope(graph.lengths)
        return functional.dropout(edge_softmax(logits, graph, envelope), self.attention_dropout, self.training)

    def _degree(self, graph: Graph) -> Tensor:
        if self.envelope is None:
            return graph.degree[:, None, None]
        return kernels.segment_sum(self.envelope(graph.lengths), graph).unsqueeze(-1)


def _irreps(irreps: o3.Irreps) -> list[o3.Irrep]:
    return [ir for _, ir in irreps]


def _rows(blocks: Sequence[Tensor]) -> Tensor:
    return torch.cat([block.flatten(1) for block in blocks], dim=-1)


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
