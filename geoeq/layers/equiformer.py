"""Equiformer: equivariant graph attention and the block around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn import functional

from geoeq import kernels
from geoeq.errors import InputError, check_name, check_positive, check_rates, check_sizes
from geoeq.graph import Graph
from geoeq.layers.chunked import chunked
from geoeq.layers.edge_softmax import edge_softmax
from geoeq.layers.irreps.dropout import EquivariantDropout, StochasticDepth
from geoeq.layers.irreps.feed_forward import GatedFeedForward
from geoeq.layers.irreps.gate import Gate
from geoeq.layers.irreps.layout import (
    flatten_blocks,
    irreps_blocks,
    split_blocks,
    to_channels_last,
    to_e3nn_layout,
)
from geoeq.layers.irreps.linear import Linear
from geoeq.layers.irreps.norms import EquivariantGraphNorm, EquivariantLayerNorm, EquivariantRMSNorm
from geoeq.layers.layer import Layer, check_width, edge_attributes
from geoeq.layers.products.product_linear import product_linear, product_maps
from geoeq.layers.products.tensor_paths import depthwise_paths, harmonics_group
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.layers.radial.radial_network import RadialNetwork

__all__ = ["EquiformerBlock", "EquiformerNorm", "EquivariantGraphAttention", "NormKind"]

#: "rms": all degrees of a node together. As published: "layer", each degree; "graph", "instance", over a graph.
NormKind = Literal["rms", "layer", "graph", "instance"]

#: Edges per chunk: few enough that their products fit in a cache of some MB, enough for fast matrix products.
CHUNK = 512


class EquivariantGraphAttention(Layer):
    """Attention with invariant weights over messages of depthwise tensor products.

    With ``⊗_w`` the depthwise product with the harmonics of the edge, whose weights w are a network of the distance::

        x_ij = W_t x_i + W_s x_j                                 eq. 1
        f_ij = x_ij ⊗_w(r) Y(r_ij)                               eq. 2
        a_ij = softmax_j( a · LeakyReLU(W_a f_ij) )              eq. 3, smooth LeakyReLU, for each head
        v_ij = W_v f_ij,  or  W_v (Gate(W_g f_ij) ⊗ Y(r_ij))     eq. 4, "nonlinear"
        y_i  = W_o Σ_j a_ij v_ij

    Args:
        irreps: irreps of the input and the output.
        irreps_harmonics: irreps of the harmonics; a parity other than (-1)^l makes "SE(3)" the group.
        irreps_head: irreps of the values of one head, each irrep once, 0e among them.
        num_heads: number H of heads.
        edge_width: number K of edge attributes in ``graph.edge_attr``, such as a radial basis.
        radial_hidden: hidden widths of the network of the distance.
        irreps_message: irreps of x_ij; None: those of the input.
        nonlinear: whether values pass through a gate and a second tensor product.
        rescale_degree: whether to multiply the sum by the number of neighbours.
        attention_dropout: probability of dropping an attention weight in training.
        dropout: probability of dropping a copy of an irrep of the result in training.
        cutoff: radius in Å at which messages vanish smoothly. None: as published.

    Shapes:
        x: [N, irreps.dim]; ``graph.edge_attr``: [E, K]. Returns [N, irreps.dim].

    Raises:
        InputError: heads have no 0e, or an irrep cannot be reached, or a number is out of range.
        TensorError: x or the edge attributes of the graph have the wrong width.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.2. Differs: the weights of the second tensor product are
        merged into W_v, and W_v is applied after the sum; with a cutoff, attention is smooth there; products are
        computed in chunks of edges and recomputed in the backward pass.
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
        check_sizes(self, num_heads=num_heads, edge_width=edge_width, radial_hidden=radial_hidden)
        check_rates(self, attention_dropout=attention_dropout, dropout=dropout)
        check_positive(self, cutoff=cutoff)
        self.irreps_in = self.irreps_out = irreps = o3.Irreps(irreps)
        harmonics, head = o3.Irreps(irreps_harmonics), o3.Irreps(irreps_head)
        message = irreps if irreps_message is None else o3.Irreps(irreps_message)
        if not head.count("0e") or len({ir for _, ir in head}) < len(head):
            raise InputError(f"irreps_head needs each irrep once and 0e among them; found {head}.")
        self.group, self.dim = harmonics_group(harmonics), irreps.dim
        self.edge_width, self.num_heads = edge_width, num_heads
        self.rescale_degree, self.attention_dropout = rescale_degree, attention_dropout
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        scalar, heads = o3.Irrep("0e"), o3.Irreps([(mul * num_heads, ir) for mul, ir in head])

        self.target, self.source = Linear(irreps, message, bias=False), Linear(irreps, message)
        self.paths, products = _paths(message, harmonics, message if nonlinear else heads)
        self.radial = RadialNetwork(edge_width, radial_hidden, self.paths.weight_numel)
        self.score_width = head.count("0e") * num_heads
        self.score = Linear(products, o3.Irreps([(self.score_width, scalar)]))
        self.score_vector = nn.Parameter(nn.init.xavier_uniform_(torch.empty(num_heads, head.count("0e"))))
        self.gate = self.gate_input = self.value_paths = None
        if nonlinear:
            self.gate = Gate(message)
            self.gate_input = Linear(products, self.gate.irreps_in)
            paths, products = _paths(self.gate.irreps_out, harmonics, heads)
            self.value_paths = paths.with_heads(num_heads)
        self.value = Linear(products, heads)
        self.head_blocks = irreps_blocks(heads)
        self.output = Linear(heads, irreps)
        self.dropout = EquivariantDropout(irreps, dropout)

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 2x1o + 2x1e", "0e + 1o + 2e", "2x0e + 1x1o + 1x1e", 2, 4, [4], cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.dim, "EquivariantGraphAttention")
        blocks = to_channels_last(x, self.target.blocks_in)
        target, source = (flatten_blocks(linear.on_blocks(blocks)) for linear in (self.target, self.source))
        x_ij = kernels.gather(target, graph.receiver) + kernels.gather(source, graph.sender)  # eq. 1
        scores, f = self._products(x_ij, graph)  # eq. 2: W_a f_ij, and W_v f_ij or Gate(W_g f_ij)
        a = self._attention(scores, graph)  # eq. 3, [E, H]
        sums = self._sum_values(f, a, graph)  # eq. 4: Σ_j a_ij v_ij
        if self.rescale_degree:
            sums = [value * self._degree(graph) for value in sums]
        result: Tensor = self.dropout(to_e3nn_layout(self.output.on_blocks(sums)))
        return result

    def _attention(self, scores: Tensor, graph: Graph) -> Tensor:
        scores = scores.unflatten(1, (self.num_heads, -1))
        # Smooth LeakyReLU of slope 0.2: 0.6 x + 0.4 x tanh(x / 2).
        scores = 0.6 * scores + 0.4 * scores * (0.5 * scores).tanh()
        logits = (scores * self.score_vector).sum(-1)  # [E, H]
        envelope = None if self.envelope is None else self.envelope(graph.lengths)
        return functional.dropout(edge_softmax(logits, graph, envelope), self.attention_dropout, self.training)

    def _sum_values(self, f: Tensor, attention: Tensor, graph: Graph) -> list[Tensor]:
        """Compute ``Σ_j a_ij v_ij``, channels last: [N, 2 l + 1, channels of all heads] for each irrep."""
        if self.value_paths is None:
            total = kernels.weighted_sum(f, attention, graph, blocks=self.head_blocks)
            return split_blocks(total, self.head_blocks)
        maps = product_maps(self.value_paths, [self.value])
        products = kernels.attended_product(f, graph.harmonics, attention, graph, self.value_paths, maps)
        sums = [products[block] for (block,) in self.value.sources]
        if self.value.bias is not None:
            scalar = self.value.biased.index(True)
            bias = self.value.bias.unflatten(0, (self.num_heads, -1))  # [H, channels of a head]
            weights = kernels.segment_sum(attention, graph).unsqueeze(-1)  # [N, H, 1]
            sums[scalar] = sums[scalar] + (weights * bias).flatten(1).unsqueeze(1)
        return sums

    def _degree(self, graph: Graph) -> Tensor:
        if self.envelope is None:
            return graph.degree[:, None, None]
        return kernels.segment_sum(self.envelope(graph.lengths), graph).unsqueeze(-1)

    def _products(self, x_ij: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """Compute ``W_a f_ij`` and ``W_v f_ij``, or ``Gate(W_g f_ij)`` if nonlinear, in chunks of edges."""
        hidden = self.radial.hidden(edge_attributes(graph, self.edge_width, "EquivariantGraphAttention"))
        second = self.value if self.gate_input is None else self.gate_input
        parameters = [*self.radial.last(), *product_maps(self.paths, [self.score, second])]
        empty = parameters[0].new_empty(0)
        parameters += [empty if bias is None else bias for bias in (self.score.bias, second.bias)]
        products = chunked(self._chunk_products, [x_ij, graph.harmonics, hidden], parameters, CHUNK)
        scores, f = products.tensor_split([self.score_width], dim=1)
        return scores, f

    def _chunk_products(self, x_ij: Tensor, harmonics: Tensor, hidden: Tensor, *parameters: Tensor) -> Tensor:
        """Return the two results of ``_products`` for one chunk, side by side."""
        matrix, offset, *maps, score_bias, second_bias = parameters
        weights = functional.linear(hidden, matrix, offset)
        linears = [self.score, self.value if self.gate_input is None else self.gate_input]
        biases = [score_bias, second_bias]
        (scores,), values = product_linear(x_ij, harmonics, weights, self.paths, linears, maps, biases)
        return flatten_blocks([scores, *(values if self.gate is None else self.gate.on_blocks(values))])


def _paths(irreps: o3.Irreps, harmonics: o3.Irreps, irreps_out: o3.Irreps) -> tuple[kernels.Paths, o3.Irreps]:
    """Return the depthwise paths to 0e and to the irreps of ``irreps_out``."""
    return depthwise_paths(irreps, harmonics, list(dict.fromkeys([o3.Irrep("0e"), *(ir for _, ir in irreps_out)])))


class EquiformerNorm(Layer):
    """The normalization of Equiformer, by name.

    Args:
        irreps: irreps of the input and the output.
        kind: "rms" (``EquivariantRMSNorm``), "layer" (``EquivariantLayerNorm``), or ``EquivariantGraphNorm`` with a
            learned share of the mean ("graph") or with the whole mean ("instance"). In symmetric structures only "rms"
            is sound: see ``EquivariantLayerNorm``.

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: the kind is unknown.
    """

    def __init__(self, irreps: o3.Irreps | str, kind: NormKind = "rms") -> None:
        super().__init__()
        check_name("norm", kind, get_args(NormKind))
        self.irreps_in = self.irreps_out = o3.Irreps(irreps)
        of_node = {"rms": EquivariantRMSNorm, "layer": EquivariantLayerNorm}.get(kind)
        self.alone = None if of_node is None else of_node(irreps)
        self.over_graph = EquivariantGraphNorm(irreps, shift=kind == "graph") if of_node is None else None

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
        attention: attention layer; its irreps are those of the input.
        irreps_middle: irreps inside the feed-forward network.
        irreps_out: irreps of the output; None: as the input. If they differ, a linear map replaces the shortcut.
        norm: kind of ``EquiformerNorm``; the published network has "layer".
        dropout: dropout probability of the feed-forward network's result.
        stochastic_depth: probability of skipping a branch, for each graph, in training.

    Shapes:
        x: [N, irreps_in.dim]; ``graph.edge_attr`` as the attention needs it. Returns [N, irreps_out.dim].

    Raises:
        InputError: a number is out of range.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990, section 4.1, figure 1. Differs: the norm, by default.
    """

    def __init__(
        self,
        attention: EquivariantGraphAttention,
        irreps_middle: o3.Irreps | str,
        irreps_out: o3.Irreps | str | None = None,
        norm: NormKind = "rms",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        check_rates(self, dropout=dropout, stochastic_depth=stochastic_depth)
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
        update = self.drop_2(self.feed_forward(self.norm_2(x, graph)), graph)
        result: Tensor = (x if self.shortcut is None else self.shortcut(x)) + update
        return result
