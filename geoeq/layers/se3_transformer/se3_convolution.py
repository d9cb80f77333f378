"""Convolution of a tensor field network, the last layer of an SE(3)-Transformer."""

from __future__ import annotations

import math
from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.irreps.layout import fiber, irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.layers.layer import Layer
from geoeq.layers.se3_transformer.edge_basis import EdgeBasis
from geoeq.layers.se3_transformer.se3_messages import Activation, RadialSharing, SE3Messages

__all__ = ["SE3Convolution"]

#: Initial factor of the messages: the sum over about ten neighbours has the variance of one message.
_INITIAL_SCALE = 10**-0.5


class SE3Convolution(Layer):
    """Self-interaction plus the sum of messages, ``x_i^k <- V^k x_i^k + Σ_j Σ_l W^{kl}(ij) x_j^l``.

    Args:
        irreps_in, irreps_out: irreps of the input and the output, each degree once. Parities have no meaning.
        edge_width: number of columns of ``graph.edge_attr``, inputs of the radial networks.
        distance, hidden, sharing, radial_norm, activation: as for ``SE3Messages``.
        cutoff: radius in Å at which messages vanish smoothly. None: messages as published.
        self_per_edge: whether to add the self-interaction once for each neighbour, as the published code does; with a
            cutoff, neighbours are weighted by the envelope.

    Shapes:
        x: [N, irreps_in.dim]. Returns [N, irreps_out.dim]. The graph needs harmonics up to the largest sum of
        an input degree and an output degree.

    Raises:
        InputError: a number is out of range.

    Source:
        Thomas et al. 2018, arXiv:1802.08219; Fuchs et al., NeurIPS 2020, arXiv:2006.10503, eq. 8. Differs: the
        self-interaction is added once (an atom without neighbours keeps it).
    """

    group = "SE(3)"

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        edge_width: int,
        distance: bool = False,
        hidden: int = 32,
        sharing: RadialSharing = "all",
        radial_norm: bool = True,
        activation: Activation = "silu",
        cutoff: float | None = None,
        self_per_edge: bool = False,
    ) -> None:
        super().__init__()
        check_sizes(self, hidden=hidden)
        check_sizes(self, least=0, edge_width=edge_width)
        check_positive(self, cutoff=cutoff)
        self.irreps_in, self.irreps_out = o3.Irreps(irreps_in), o3.Irreps(irreps_out)
        self.edge_width, self.cutoff, self.self_per_edge = edge_width, cutoff, self_per_edge
        self.degrees_in, self.degrees_out = fiber(irreps_in), fiber(irreps_out)
        self.blocks = irreps_blocks(self.irreps_in)
        self.messages = SE3Messages(
            self.degrees_in, self.degrees_out, edge_width, distance, hidden, sharing, radial_norm, activation
        )
        with torch.no_grad():
            for weight in self.messages.weights:
                weight.mul_(_INITIAL_SCALE)
        channels = dict(self.degrees_in)
        self.own = nn.ParameterDict(
            {
                str(degree): nn.Parameter(torch.randn(width, channels[degree]) / math.sqrt(channels[degree]))
                for degree, width in self.degrees_out
                if degree in channels
            }
        )

    @classmethod
    def example(cls) -> Self:
        return cls("4x0e + 3x1o", "3x0e + 2x1o + 2x2e", edge_width=4, hidden=6, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph, basis: EdgeBasis | None = None) -> Tensor:
        basis = EdgeBasis(graph, self.cutoff) if basis is None else basis
        blocks = to_channels_last(x, self.blocks)
        x_by_degree = {degree: block for (degree, _), block in zip(self.degrees_in, blocks, strict=True)}
        count = torch.ones_like(x[:, :1])  # [N, 1], of self-interactions
        if self.self_per_edge:
            envelope = basis.envelope
            count = graph.degree.unsqueeze(-1) if envelope is None else kernels.segment_sum(envelope, graph)
        result = []
        for (degree, _), message in zip(self.degrees_out, self.messages(blocks, basis), strict=True):
            if basis.envelope is not None:
                message = message * basis.envelope.unsqueeze(-1)
            total = kernels.segment_sum(message, graph)  # Σ_j Σ_l W^{kl}(ij) x_j^l, [N, 2 k + 1, C_k]
            if str(degree) in self.own:
                own = x_by_degree[degree] @ self.own[str(degree)].T  # V^k x_i^k
                total = total + own * count.unsqueeze(-1)
            result.append(total)
        return to_e3nn_layout(result)
