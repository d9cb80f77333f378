"""Plain message passing, without geometric equivariance."""

from __future__ import annotations

from typing import Self

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.layer import EdgeLinear, Layer, check_width, edge_attributes
from geoeq.layers.radial.envelope import PolynomialEnvelope

__all__ = ["GNNLayer"]


class GNNLayer(Layer):
    """Update scalar node features by one round of plain messages.

    With ``a_ij`` the edge attributes::

        m_ij = φ_e(h_i, h_j, a_ij)
        h_i <- h_i + φ_h(h_i, Σ_j m_ij)

    The output has the symmetry of the input features and edge attributes.

    Args:
        width: number C of channels.
        edge_width: number A of edge attributes in ``graph.edge_attr``; may be 0.
        cutoff: radius in Å at which messages vanish smoothly. None: messages as published.

    Shapes:
        x: [N, C], irreps ``Cx0e``. Returns the same.

    Raises:
        InputError: a number is out of range.
        TensorError: x or the edge attributes of the graph have the wrong width.

    Source:
        Gilmer et al., ICML 2017, arXiv:1704.01212, in the form of the baseline "GNN" of Satorras et al., ICML 2021,
        arXiv:2102.09844, eq. 2. Differs: the first map of φ_e acts on nodes before they are gathered (the same
        numbers); with a cutoff, an envelope.
    """

    def __init__(self, width: int, edge_width: int = 0, cutoff: float | None = None) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_sizes(self, least=0, edge_width=edge_width)
        check_positive(self, cutoff=cutoff)
        self.width, self.edge_width = width, edge_width
        self.irreps_in = self.irreps_out = o3.Irreps([(width, "0e")])
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        self.edge = EdgeLinear(width, edge_width, width)
        self.message = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.update = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, edge_width=4, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.width, "GNNLayer")
        attributes = x.new_zeros(len(graph.sender), 0)
        if self.edge_width:
            attributes = edge_attributes(graph, self.edge_width, "GNNLayer")  # [E, A]

        m: Tensor = self.message(self.edge(x, attributes, graph)).to(x.dtype)  # [E, C]
        if self.envelope is None:
            m = kernels.segment_sum(m, graph)  # [N, C]
        else:
            m = kernels.weighted_sum(m, self.envelope(graph.lengths), graph)
        result: Tensor = x + self.update(torch.cat([x, m], dim=-1))
        return result
