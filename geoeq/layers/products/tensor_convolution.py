"""Convolution by a selectable product, with a gate: the layer of tensor field networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from geoeq.errors import check_positive, check_sizes
from geoeq.graph import Graph
from geoeq.layers.irreps.gate import Gate
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.irreps.linear import DegreeLinear
from geoeq.layers.layer import Group, Layer, check_width, edge_attributes
from geoeq.layers.products import Product, edge_product
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.layers.radial.radial_network import RadialNetwork

__all__ = ["TensorConvolution"]

#: E[silu(x)²] for normal x.
_SILU_POWER = 0.3557


class TensorConvolution(Layer):
    """Messages that are products of features and harmonics, weighted by a network of the distance; then a gate.

    ::

        m_i = Σ_j f(r_ij) (V x_j) ⊗ Y(r_ij), weights R(a_ij), / sqrt(neighbors)
        x_i <- gate(W m_i + U x_i)

    V, W, U mix the channels of each degree; the gate applies SiLU to scalars, and multiplies each other channel by the
    sigmoid of a linear map of the scalars.

    Args:
        channels: number C of channels of each degree.
        lmax: highest degree of the features.
        product: "clebsch_gordan" (every path), "gaunt_fourier" or "gaunt_grid" (signals on the sphere), "edge_frame"
            (SO(2) in the edge frame).
        edge_width: number A of edge attributes in ``graph.edge_attr``.
        hidden: widths of the hidden layers of R.
        lmax_edge: highest degree of the harmonics, by default lmax; "edge_frame" uses all and refuses lmax_edge.
        group: "SE(3)" adds the paths of odd l1 + l2 + l3 ("clebsch_gordan", "edge_frame").
        neighbors: typical number of neighbours of a node.
        gated: whether to apply the gate.
        cutoff: radius in Å at which messages vanish smoothly. None: f = 1.

    Shapes:
        x: [N, C (lmax + 1)²], irreps ``Cx0e + Cx1o + Cx2e + ...``. Returns the same.

    Raises:
        InputError: the product is unknown or does not support an option, or edge_width is not positive.
        TensorError: x or the edge attributes of the graph have the wrong width, or the graph lacks harmonics.

    Source:
        Thomas et al. 2018, arXiv:1802.08219, section 4; gates as Batzner et al. 2022, arXiv:2101.03164. Differs: the
        product is selectable; parities are those of harmonics; layer normalization in R.
    """

    def __init__(
        self,
        channels: int,
        lmax: int,
        product: Product = "clebsch_gordan",
        edge_width: int = 8,
        hidden: Sequence[int] = (64,),
        lmax_edge: int | None = None,
        group: Group = "E(3)",
        neighbors: float = 16.0,
        gated: bool = True,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_sizes(self, channels=channels, edge_width=edge_width, hidden=hidden)  # weights come from the distance
        check_sizes(self, least=0, lmax=lmax, lmax_edge=lmax_edge)
        check_positive(self, neighbors=neighbors, cutoff=cutoff)
        self.channels, self.lmax, self.edge_width = channels, lmax, edge_width
        self.irreps_in = self.irreps_out = sphere_irreps(lmax, channels)
        self.dim = self.irreps_in.dim  # torch.compile cannot read Irreps
        self.group, self.scale = group, 1 / math.sqrt(neighbors)
        self.product = edge_product(product, channels, lmax, lmax_edge, group)
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)

        self.radial = RadialNetwork(edge_width, hidden, self.product.weight_numel, offset=False)
        width = hidden[-1] if len(hidden) else edge_width
        last: nn.Linear = self.radial.network[-1]  # type: ignore[assignment]
        nn.init.normal_(last.weight, std=1 / math.sqrt(_SILU_POWER * width))  # weights of variance 1
        self.before = DegreeLinear(channels, channels, lmax, bias=False)
        self.after = DegreeLinear(channels, channels, lmax)
        self.own = DegreeLinear(channels, channels, lmax, bias=False)
        self.gates = nn.Linear(channels, lmax * channels) if gated and lmax else None
        self.gate = Gate(self.irreps_out) if gated else None

    @classmethod
    def example(cls) -> Self:
        return cls(channels=4, lmax=2, product="gaunt_grid", edge_width=4, hidden=(8,), neighbors=4.0, cutoff=4.0)

    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        check_width(x, self.dim, "TensorConvolution")
        attributes = edge_attributes(graph, self.edge_width, "TensorConvolution")
        features = to_coefficients(x, self.lmax, self.channels)  # [N, (L + 1)², C]
        m = self._sum_messages(self.before(features), attributes, graph)  # [N, (L + 1)², C]
        features = self.after(m * self.scale) + self.own(features)
        if self.gate is not None:
            features = self._apply_gate(self.gate, features)
        return from_coefficients(features, self.lmax)

    def _sum_messages(self, features: Tensor, attributes: Tensor, graph: Graph) -> Tensor:
        """Compute ``Σ_j f(r_ij) (V x_j) ⊗ Y(r_ij)``, weighted by the network of the distance."""
        envelope = None if self.envelope is None else self.envelope(graph.lengths)  # [E, 1]
        factors = self.radial.factors(attributes)
        with torch.autocast(features.device.type, enabled=False):  # long sums and FFT need full precision
            dtype = graph.lengths.dtype
            hidden, matrix = (factor.to(dtype) for factor in factors)
            return self.product.from_hidden(features.to(dtype), hidden, matrix, graph, envelope)

    def _apply_gate(self, gate: Gate, features: Tensor) -> Tensor:
        blocks = list(features.split([2 * degree + 1 for degree in range(self.lmax + 1)], dim=1))
        if self.gates is not None:
            blocks[0] = torch.cat([blocks[0], self.gates(blocks[0])], dim=2)  # [N, 1, C + lmax C]
        return torch.cat(gate.on_blocks(blocks), dim=1)
