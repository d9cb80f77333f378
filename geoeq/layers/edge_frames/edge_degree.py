"""Edge-degree embedding of EquiformerV2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoeq.constants import constant
from geoeq.errors import TensorError, check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.edge_frames.so2 import attention_sum
from geoeq.layers.irreps.linear import degree_index
from geoeq.layers.radial.edge_network import EdgeNetwork
from geoeq.layers.radial.envelope import PolynomialEnvelope

__all__ = ["EdgeDegreeEmbedding", "order_scale"]


@constant
def order_scale(lmax: int, mmax: int) -> Tensor:
    """Return ``sqrt((2l + 1) / (2 min(l, mmax) + 1))`` of each component, which compensates for the omitted orders.

    Shapes:
        Returns [(lmax + 1)², 1] float64.
    """
    degree = degree_index(lmax).double()
    return ((2 * degree + 1) / (2 * degree.clamp(max=mmax) + 1)).sqrt().unsqueeze(-1)


class EdgeDegreeEmbedding(nn.Module):
    """Embedding ``x_i,lc = s_l / n Σ_j w_lc(e_ij) Y_l(r_ij) / sqrt(2l + 1)``, with w an ``EdgeNetwork``.

    The harmonics are the columns m = 0 of the Wigner matrices from the edge frames, so no frames are needed.

    Args:
        lmax, mmax: highest degree and order of the network; s is ``order_scale``.
        channels: number C of channels of each degree.
        edge_width, edge_channels, elements: as for ``EdgeNetwork``.
        average_degree: divisor n of the sum.
        cutoff: radius in Å at which terms vanish smoothly. None: as published.

    Shapes:
        Returns [N, (lmax + 1)², C].

    Raises:
        TensorError: the harmonics of the graph end below lmax.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059. Differs: with a cutoff, an envelope.
    """

    scale: Tensor
    rows: Tensor

    def __init__(
        self,
        lmax: int,
        mmax: int,
        channels: int,
        edge_width: int,
        edge_channels: int,
        elements: bool = False,
        average_degree: float = 1.0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, channels=channels, edge_width=edge_width, edge_channels=edge_channels)
        check_positive(self, average_degree=average_degree, cutoff=cutoff)
        self.lmax, self.channels = lmax, channels
        self.network = EdgeNetwork(edge_width, edge_channels, (lmax + 1) * channels, elements)
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        degree = degree_index(lmax)
        norm = (2 * degree.double() + 1).sqrt().unsqueeze(-1)
        self.register_buffer("scale", order_scale(lmax, mmax) / norm / average_degree, persistent=False)
        rows = torch.nn.functional.one_hot(degree).T.double()  # 1 where a component has this degree
        self.register_buffer("rows", rows, persistent=False)

    def forward(self, graph: Graph) -> Tensor:
        if graph.lmax < self.lmax:
            raise TensorError(
                f"EdgeDegreeEmbedding: harmonics up to degree {self.lmax} are needed; the graph has {graph.lmax}."
            )
        weights = self.network(graph)  # [E, (L + 1) C]
        if self.envelope is not None:
            weights = weights * self.envelope(graph.lengths)
        weights = weights.unflatten(-1, (self.lmax + 1, self.channels))  # [E, L + 1, C]
        harmonics = graph.harmonics[:, : len(self.scale)].unsqueeze(1) * self.rows.to(weights.dtype)  # [E, L + 1, K]
        ones = weights.new_ones(1, self.channels).expand(weights.shape[0], -1)
        summed = attention_sum(weights, ones, harmonics, graph.receiver, graph.num_nodes)
        return summed * self.scale.to(weights.dtype)
