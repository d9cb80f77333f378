"""PONITA: convolution kernels over positions and orientations, and its ConvNeXt block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import check_name, check_positive, check_sizes
from geoeq.geometry.neighbors import edge_lengths as safe_norm
from geoeq.graph import Graph
from geoeq.kernels import Path, Paths
from geoeq.layers.radial.envelope import PolynomialEnvelope

__all__ = ["Invariants", "OrientationBasis", "OrientationKernels", "PonitaLayer"]

#: The second invariant of an edge, besides its component along the orientation.
Invariants = Literal["length", "perpendicular"]


@dataclass(frozen=True)
class OrientationBasis:
    """The functions of which the kernels of all layers are linear combinations.

    Shapes:
        edges: [E, P, B], zero at the cutoff. loop: [1, B], of a node with itself. fibre: [P, P, B]; None if P is 1.
    """

    edges: Tensor
    loop: Tensor
    fibre: Tensor | None


class _PolynomialNetwork(nn.Module):
    """Two linear maps with GELU of the products of up to ``degree`` inputs; attributes enter as they are."""

    def __init__(self, inputs: int, degree: int, attributes: int, hidden: int, width: int) -> None:
        super().__init__()
        width_in = sum(inputs**power for power in range(1, degree + 1)) + attributes
        self.network = nn.Sequential(nn.Linear(width_in, hidden), nn.GELU(), nn.Linear(hidden, width), nn.GELU())
        self.degree = degree

    def forward(self, inputs: Tensor, attributes: Tensor | None = None) -> Tensor:
        products = [inputs]
        for _ in range(1, self.degree):
            products.append((products[-1].unsqueeze(-1) * inputs.unsqueeze(-2)).flatten(-2))
        result: Tensor = self.network(torch.cat(products if attributes is None else [*products, attributes], dim=-1))
        return result


class OrientationKernels(nn.Module):
    """The kernel basis that all layers share, from invariants of edges and orientations.

    An edge vector ``v`` and an orientation ``o`` have the invariants ``v·o`` and ``|v|``, or ``v·o`` and
    ``|v - (v·o) o|``; two orientations have ``o·o'``. Without orientations the only invariant is ``|v|``.

    Args:
        width: number B of basis functions.
        hidden: hidden width of the networks that compute them.
        degree: degree of the polynomials of the invariants.
        oriented: whether nodes have orientations.
        invariants: "length" is smooth; "perpendicular", as published, has a kink where an edge is parallel to an
            orientation.
        edge_width: number A of edge attributes (``graph.edge_attr``); those of a node with itself are 0.
        cutoff: radius in Å at which the functions vanish smoothly.

    Shapes:
        vectors: [E, 3] Å. points: [P, 3], unit vectors; [1, 3] and ignored if not oriented.

    Raises:
        InputError: an option is not one of those above, or a number is out of range.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        degree: int = 2,
        oriented: bool = True,
        invariants: Invariants = "length",
        edge_width: int = 0,
        cutoff: float | None = None,
    ) -> None:
        super().__init__()
        check_name("kind of invariants", invariants, get_args(Invariants))
        check_sizes(self, width=width, hidden=hidden, degree=degree)
        check_sizes(self, least=0, edge_width=edge_width)
        check_positive(self, cutoff=cutoff)
        self.invariants, self.edge_width = invariants, edge_width
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        self.edge = _PolynomialNetwork(2 if oriented else 1, degree, edge_width, hidden, width)
        self.fibre = _PolynomialNetwork(1, degree, 0, hidden, width) if oriented else None

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, hidden=8, cutoff=4.0)

    def forward(self, vectors: Tensor, points: Tensor, graph: Graph) -> OrientationBasis:
        invariants = self._invariants(vectors, points, graph)  # [E, P, I]
        attributes = graph.edge_attr
        if attributes is not None:
            attributes = attributes.unsqueeze(1).expand(-1, invariants.shape[1], -1)  # [E, P, A]
        edges = self.edge(invariants, attributes)
        if self.envelope is not None:
            edges = edges * self.envelope(graph.lengths).unsqueeze(-1)
        loop = self.edge(invariants.new_zeros(1, invariants.shape[-1]), invariants.new_zeros(1, self.edge_width))
        fibre = None if self.fibre is None else self.fibre((points @ points.T).unsqueeze(-1))
        return OrientationBasis(edges, loop, fibre)

    def _invariants(self, vectors: Tensor, points: Tensor, graph: Graph) -> Tensor:
        lengths = graph.lengths.unsqueeze(-1)  # [E, 1]
        if self.fibre is None:
            return lengths.unsqueeze(-1)
        along = vectors @ points.T  # [E, P]
        if self.invariants == "length":
            return torch.stack([along, lengths.expand_as(along)], dim=-1)
        across = vectors.unsqueeze(1) - along.unsqueeze(-1) * points  # [E, P, 3]
        return torch.stack([along, safe_norm(across.flatten(0, 1)).view_as(along)], dim=-1)


class PonitaLayer(nn.Module):
    """A convolution over positions, one over orientations, and a pointwise network: a ConvNeXt block.

    With kernels k that are linear combinations of the basis functions::

        y_i(o) = Σ_j k(x_j - x_i, o) f_j(o) + k(0) f_i(o)        for each channel
        z_i(o) = mean_o' k'(o·o') y_i(o') + b
        f_i(o) <- f_i(o) + s W_2 GELU(W_1 norm(z_i(o)))

    Args:
        channels: number C of channels.
        basis_width: number B of basis functions.
        orientations: number P of orientations; 1 omits the convolution over orientations.
        widening: hidden width of the pointwise network, as a multiple of C.
        layer_scale: initial value of the learned scale s of each channel; None omits s.

    Shapes:
        x: [N, P, C]. Returns the same.

    Raises:
        InputError: a number is out of range.

    Source:
        Bekkers et al., ICLR 2024, arXiv:2310.02970, section 3 and figure 1, and its code. Differs: kernels are not
        rescaled by the first training batch.
    """

    def __init__(
        self, channels: int, basis_width: int, orientations: int, widening: int = 4, layer_scale: float | None = None
    ) -> None:
        super().__init__()
        check_sizes(self, channels=channels, basis_width=basis_width, orientations=orientations, widening=widening)
        columns = orientations * channels
        path = Path((0, 0, 0), 0, columns, 0, 0, columns, 0, "uvu", 1.0)
        self.paths = Paths((path,), ((1, columns),), ((1, columns),))
        self.kernel = nn.Linear(basis_width, channels, bias=False)
        self.fibre_kernel = nn.Linear(basis_width, channels, bias=False) if orientations > 1 else None
        self.bias = nn.Parameter(torch.zeros(channels))
        self.norm = nn.LayerNorm(channels)
        self.first = nn.Linear(channels, widening * channels)
        self.second = nn.Linear(widening * channels, channels)
        self.layer_scale = None if layer_scale is None else nn.Parameter(torch.full((channels,), layer_scale))

    @classmethod
    def example(cls) -> Self:
        return cls(channels=4, basis_width=8, orientations=6, widening=2, layer_scale=0.5)

    def forward(self, x: Tensor, basis: OrientationBasis, graph: Graph) -> Tensor:
        z = self.convolve(x, basis, graph)
        update = self.second(nn.functional.gelu(self.first(self.norm(z))))
        if self.layer_scale is not None:
            update = update * self.layer_scale
        result: Tensor = x + update
        return result

    def convolve(self, x: Tensor, basis: OrientationBasis, graph: Graph) -> Tensor:
        """Apply both convolutions: x to y to z, [N, P, C] each."""
        weights = self.kernel(basis.edges).flatten(1).to(x.dtype)  # k(x_j - x_i, o), [E, P C]
        y = kernels.tensor_product_conv(x.flatten(1), graph.harmonics, weights, graph, self.paths).view_as(x)
        y = y + self.kernel(basis.loop) * x
        if self.fibre_kernel is not None and basis.fibre is not None:
            weights = self.fibre_kernel(basis.fibre).to(y.dtype)  # k'(o·o'), [P, P, C]
            y = torch.einsum("nqc,pqc->npc", y, weights) / x.shape[1]
        return y + self.bias
