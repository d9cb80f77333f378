"""Graph attention by SO(2) convolutions in edge frames, the attention of EquiformerV2."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from geoeq.errors import check_rates
from geoeq.graph import Graph
from geoeq.layers.chunked import chunked
from geoeq.layers.edge_frames.edge_convolution import edge_convolution
from geoeq.layers.edge_frames.edge_degree import order_scale
from geoeq.layers.edge_frames.so2 import (
    SO2Convolution,
    attention_sum,
    by_order,
    convolve_orders,
    order_sizes,
    pair_terms,
    rotate_back,
)
from geoeq.layers.edge_softmax import edge_softmax
from geoeq.layers.irreps.linear import DegreeLinear
from geoeq.layers.radial.edge_network import EdgeNetwork
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.layers.sphere.sphere_activation import SphereActivation

__all__ = ["SO2Attention", "smooth_leaky_relu"]

#: Edges per chunk: few enough that their messages fit in a cache of some MB, enough for fast matrix products.
CHUNK = 512


def smooth_leaky_relu(x: Tensor, slope: float = 0.2) -> Tensor:
    """Return ``x (a + (1 - a) σ(x))`` with slope a, which tends to x for large x and to ``a x`` for very negative x."""
    return x * (slope + (1 - slope) * x.sigmoid())


class SO2Attention(nn.Module):
    """Attention over messages of two SO(2) convolutions with a nonlinearity between them.

    In the frame of edge (j, i), with factors w_ij of an ``EdgeNetwork``::

        h_ij, s_ij = SO2(w_ij * [D x_j, D x_i])               D x: orders up to mmax
        v_ij = SO2(activation(h_ij, s_ij))                    C_v channels for each head
        a_ij = softmax_j(α · leaky_relu(layer_norm(s_ij)))    for each head
        y_i = W Σ_j a_ij D^T v_ij

    Args:
        lmax, mmax: highest degree and order.
        channels: number C of channels of each degree.
        hidden: number of channels of h.
        heads: number H of heads.
        alpha_channels: number of scalars per head from which its attention is computed.
        value_channels: number C_v of channels of the values of a head.
        channels_out: number D of channels of the result.
        activation: nonlinearity of the ``hidden`` channels, with coefficients in the order of ``order_degree``.
        edge_width, edge_channels, elements: as for ``EdgeNetwork``.
        renormalize: whether to apply the layer norm in the attention ("attention re-normalisation").
        scores_from_values: whether the scores are outputs of the second convolution, after the nonlinearity;
            alpha_channels and renormalize then have no effect.
        alpha_dropout: probability of dropping an attention weight in training.
        cutoff: radius in Å at which messages vanish smoothly. None: as published.

    Shapes:
        x: [N, (lmax + 1)², C]. frame: [E, R, (lmax + 1)²] of ``frame_matrix``. Returns [N, (lmax + 1)², D].

    Raises:
        InputError: mmax is not between 0 and lmax, or alpha_dropout is not a probability below 1.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, sections 4.1 and 4.4; Liao & Smidt, ICLR 2023, arXiv:2206.11990.
        Differs: with a cutoff, an envelope; rotated features, factors and messages are computed in chunks of edges, and
        again in the backward pass.
    """

    scale: Tensor

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: int,
        hidden: int,
        heads: int,
        alpha_channels: int,
        value_channels: int,
        channels_out: int,
        activation: SphereActivation,
        edge_width: int,
        edge_channels: int,
        elements: bool = False,
        renormalize: bool = True,
        scores_from_values: bool = False,
        alpha_dropout: float = 0.0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_rates(self, alpha_dropout=alpha_dropout)
        self.heads, self.value_channels = heads, value_channels
        num_weights = 2 * channels * sum(order_sizes(lmax, mmax))
        self.network = EdgeNetwork(edge_width, edge_channels, num_weights, elements)
        score_width = 0 if scores_from_values else heads * alpha_channels
        self.score_width, self.extra_width = score_width, activation.extra * hidden
        self.first = SO2Convolution(lmax, mmax, 2 * channels, hidden, score_width + self.extra_width)
        self.activation = activation
        extra = heads if scores_from_values else 0
        self.second = SO2Convolution(lmax, mmax, hidden, heads * value_channels, extra)
        self.norm = nn.LayerNorm(alpha_channels) if renormalize and score_width else None
        self.alpha = None
        if score_width:
            bound = 1 / math.sqrt(alpha_channels)
            self.alpha = nn.Parameter(torch.empty(heads, alpha_channels).uniform_(-bound, bound))
        self.dropout = nn.Dropout(alpha_dropout)
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        self.project = DegreeLinear(heads * value_channels, channels_out, lmax)
        self.register_buffer("scale", order_scale(lmax, mmax), persistent=False)

    def forward(self, x: Tensor, graph: Graph, frame: Tensor) -> Tensor:
        s, h = self._first_convolution(x, graph, frame)  # SO2(w_ij * [D x_j, D x_i])
        y = self._sum_messages(s, h, graph, frame)  # Σ_j a_ij D^T v_ij, [N, (lmax + 1)², H C_v]
        result: Tensor = self.project(y * self.scale.to(x.dtype))  # W
        return result

    def _first_convolution(self, x: Tensor, graph: Graph, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the scalars of the attention [E, score_width] and the nonlinearity's input [E, extra + R hidden]."""
        return edge_convolution(
            x,
            self.network.hidden(graph),
            self.network.last.weight,
            self.network.last.bias,
            frame,
            graph.sender,
            graph.receiver,
            self.first.matrices(),
            self.first.scalar.bias,
            self.first.sizes,
            first=self.score_width,
        )

    def _sum_messages(self, s: Tensor, h: Tensor, graph: Graph, frame: Tensor) -> Tensor:
        """Compute ``Σ_j a_ij D^T v_ij`` in chunks of edges."""
        second = [self.second.scalar.bias, *self.second.matrices()]
        if self.alpha is None:  # the scores come with the values
            values = chunked(self._second_convolution, [h], second, CHUNK)  # [E, H + R H C_v]
            s, values = values.tensor_split([self.heads], dim=1)
            weights = self._per_channel(self._attention(s, graph))
            return attention_sum(self._by_row(values), weights, frame, graph.receiver, graph.num_nodes)
        rows = [h, self._attention(s, graph), frame]
        return chunked(self._messages, rows, second, CHUNK, target=(graph.receiver, graph.num_nodes))

    def _attention(self, s: Tensor, graph: Graph) -> Tensor:
        """Compute the attention weights a_ij, [E, H]."""
        if self.alpha is not None:
            norm = () if self.norm is None else (self.norm.weight, self.norm.bias)
            s = chunked(_logits, [s], [self.alpha, *norm], CHUNK)  # [E, H]
        envelope = None if self.envelope is None else self.envelope(graph.lengths)
        attention: Tensor = self.dropout(edge_softmax(s, graph, envelope))
        return attention

    def _messages(self, h: Tensor, attention: Tensor, frame: Tensor, *second: Tensor) -> Tensor:
        """Compute ``a_ij D^T v_ij`` from the first convolution, [E, (lmax + 1)², H C_v]."""
        return rotate_back(self._by_row(self._second_convolution(h, *second)), self._per_channel(attention), frame)

    def _second_convolution(self, h: Tensor, bias: Tensor, *matrices: Tensor) -> Tensor:
        """Apply the nonlinearity and the second convolution; the result has one row per edge."""
        scalars, hidden = h.tensor_split([self.extra_width], dim=1)
        active: Tensor = self.activation(hidden.unflatten(1, (self.first.rows, -1)), scalars)  # [E, R, hidden]
        first, *pairs = by_order(active, self.first.sizes)
        return convolve_orders([first, *(term for pair in pairs for term in pair_terms(pair))], matrices, bias)

    def _by_row(self, values: Tensor) -> Tensor:
        result: Tensor = values.unflatten(1, (self.second.rows, -1))  # [E, R, H C_v]
        return result

    def _per_channel(self, attention: Tensor) -> Tensor:
        return attention.repeat_interleave(self.value_channels, dim=1)  # [E, H C_v]


def _logits(scores: Tensor, alpha: Tensor, *norm: Tensor) -> Tensor:
    """Compute ``α · leaky_relu(layer_norm(s_ij))``, [E, H]."""
    scores = scores.unflatten(-1, alpha.shape)  # [E, H, A]
    if norm:
        gain, offset = norm
        scores = layer_norm(scores, gain.shape, gain, offset)
    return (smooth_leaky_relu(scores) * alpha).sum(-1)
