"""Equivariant attention of the SE(3)-Transformer."""

from __future__ import annotations

import math
from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import InputError, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.edge_softmax import edge_softmax
from geoeq.layers.irreps.layout import (
    fiber,
    flatten_blocks,
    irreps_blocks,
    split_blocks,
    to_channels_last,
    to_e3nn_layout,
)
from geoeq.layers.layer import Layer
from geoeq.layers.se3_transformer.edge_basis import EdgeBasis
from geoeq.layers.se3_transformer.se3_messages import Activation, RadialSharing, SE3Messages

__all__ = ["SE3Attention"]


class SE3Attention(Layer):
    """Attention with invariant weights over equivariant messages.

    With queries ``q_i = Q x_i`` of the nodes, keys ``k_ij`` and values ``v_ij`` from kernels of the edges, and d the
    number of entries of a key::

        a_ij = softmax_j(q_i · k_ij / sqrt(d))      for each head, eq. 11
        x_i <- P [Σ_j a_ij v_ij, x_i]               for each degree, eqs. 10, 12

    Args:
        irreps_in, irreps_out: irreps of the input and the output, each degree once. Parities have no meaning.
        edge_width: number of columns of ``graph.edge_attr``, inputs of the radial networks.
        heads: number of attention heads.
        channels_div: divisor that gives the channels of keys and values from those of the output.
        distance, hidden, sharing, radial_norm, activation: as for ``SE3Messages``.
        cutoff: radius in Å at which attention vanishes smoothly. None: attention as published.

    Shapes:
        x: [N, irreps_in.dim]. Returns [N, irreps_out.dim]. The graph needs harmonics up to the largest sum of
        an input degree and an output degree.

    Raises:
        InputError: the number of heads does not divide the channels of keys and values, or no degree occurs in both the
            input and the output, so there are no keys, or a number is out of range.

    Source:
        Fuchs et al., NeurIPS 2020, arXiv:2006.10503, eqs. 8-12; channels_div and the scale of the scores as in
        NVIDIA's implementation. Differs: derivatives by positions are exact.
    """

    group = "SE(3)"

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        edge_width: int,
        heads: int = 8,
        channels_div: int = 2,
        distance: bool = False,
        hidden: int = 32,
        sharing: RadialSharing = "all",
        radial_norm: bool = True,
        activation: Activation = "silu",
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, heads=heads, channels_div=channels_div, hidden=hidden)
        check_sizes(self, least=0, edge_width=edge_width)
        check_positive(self, cutoff=cutoff)
        self.irreps_in, self.irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
        self.edge_width, self.heads, self.cutoff = edge_width, heads, cutoff
        self.degrees_in, self.degrees_out = fiber(irreps_in), fiber(irreps_out)
        self.blocks = irreps_blocks(self.irreps_in)
        channels = dict(self.degrees_in)
        self.values = tuple((degree, width // channels_div) for degree, width in self.degrees_out)
        for degree, width in self.values:
            if width < 1 or width % heads:
                raise InputError(f"{heads} heads do not divide the {width} channels of values of degree {degree}.")
        self.keys = {degree: width for degree, width in self.values if degree in channels}
        if not self.keys:
            raise InputError(f"Queries need a degree that both {irreps_in} and {irreps_out} have.")
        self.scale = 1 / math.sqrt(sum((2 * degree + 1) * width for degree, width in self.keys.items()))

        both = tuple((degree, width + self.keys.get(degree, 0)) for degree, width in self.values)
        self.messages = SE3Messages(
            self.degrees_in, both, edge_width, distance, hidden, sharing, radial_norm, activation
        )
        self.query = _maps({degree: (width, channels[degree]) for degree, width in self.keys.items()})
        joined = {degree: width + channels.get(degree, 0) for degree, width in self.values}
        self.project = _maps({degree: (width, joined[degree]) for degree, width in self.degrees_out})

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 3x1o", "4x0e + 4x1o + 4x2e", edge_width=4, heads=2, channels_div=1, hidden=6, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph, basis: EdgeBasis | None = None) -> Tensor:
        basis = EdgeBasis(graph, self.cutoff) if basis is None else basis
        blocks = to_channels_last(x, self.blocks)
        x_by_degree = {degree: block for (degree, _), block in zip(self.degrees_in, blocks, strict=True)}

        values, scores = self._values_and_scores(self.messages(blocks, basis), x_by_degree, graph)  # eq. 8
        weights = edge_softmax(scores * self.scale, graph, basis.envelope)  # eq. 11, [E, heads]
        shapes = tuple((2 * degree + 1, width) for degree, width in self.values)
        total = kernels.weighted_sum(flatten_blocks(values), weights, graph, blocks=shapes)  # eq. 10

        result = []
        for (degree, _), joined in zip(self.values, split_blocks(total, shapes), strict=True):  # [N, 2 l + 1, C / div]
            if degree in x_by_degree:
                joined = torch.cat([joined, x_by_degree[degree]], dim=-1)
            result.append(joined @ self.project[str(degree)].T)  # eq. 12
        return to_e3nn_layout(result)

    def _values_and_scores(
        self, messages: list[Tensor], x_by_degree: dict[int, Tensor], graph: Graph
    ) -> tuple[list[Tensor], Tensor]:
        """Split messages into values v_ij and keys k_ij; return the values and the scores ``q_i · k_ij`` [E, heads]."""
        x = next(iter(x_by_degree.values()))
        values, scores = [], x.new_zeros(graph.sender.shape[0], self.heads)
        for (degree, width), message in zip(self.values, messages, strict=True):
            values.append(message[..., :width])  # [E, 2 l + 1, C / div]
            if degree in self.keys:
                query = kernels.gather(x_by_degree[degree] @ self.query[str(degree)].T, graph.receiver)
                products = (query * message[..., width:]).sum(1)  # [E, C / div]
                scores = scores + products.view(-1, self.heads, width // self.heads).sum(-1)
        return values, scores


def _maps(shapes: dict[int, tuple[int, int]]) -> nn.ParameterDict:
    """Return a random matrix [C_out, C_in] for each degree."""
    return nn.ParameterDict(
        {str(degree): nn.Parameter(torch.randn(shape) / math.sqrt(shape[1])) for degree, shape in shapes.items()}
    )
