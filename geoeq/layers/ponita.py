"""Convolutions over positions and orientations: PONITA's kernels and its block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import InputError, unknown_name
from geoeq.geometry.neighbors import edge_lengths as safe_norm
from geoeq.graph import Graph
from geoeq.kernels import Path, Paths
from geoeq.layers.radial.envelope import PolynomialEnvelope

__all__ = ["Invariants", "OrientationBasis", "OrientationKernels", "PonitaLayer"]

#: What else there is of an edge beside its part along the orientation.
Invariants = Literal["length", "perpendicular"]


@dataclass(frozen=True)
class OrientationBasis:
    """What the kernels of all layers are linear maps of.

    Shapes:
        edges: [E, P, B], zero at the cutoff. loop: [1, B], of a node and itself. fibre: [P, P, B]; None where P is 1.
    """

    edges: Tensor
    loop: Tensor
    fibre: Tensor | None


class _PolynomialNetwork(nn.Module):
    """Two linear maps with GELU, of all products of up to ``degree`` of the inputs, and of attributes as they are."""

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
    """Invariants of edges and orientations, as a basis of kernels that all layers share.

    With ``v`` the vector of an edge, its invariants with an orientation ``o`` are ``v·o`` and ``|v|``, or ``v·o`` and
    ``|v - (v·o) o|``; of two orientations it is ``o·o'``. Of a point without orientations there is ``|v|`` alone.

    Args:
        width: number B of functions.
        hidden: width of the networks that make them.
        degree: of the polynomials of the invariants.
        oriented: whether there are orientations.
        invariants: "length" is smooth; "perpendicular" as published, with a kink where an edge is along an
            orientation.
        edge_width: number A of further invariants of an edge (``graph.edge_attr``); those of a node with itself are 0.
        cutoff: in Å; the functions then fall smoothly to zero there.

    Shapes:
        vectors: [E, 3] Å. points: [P, 3], unit vectors; [1, 3] and not looked at where not oriented.

    Raises:
        InputError: an option is none of those above.
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
        if invariants not in get_args(Invariants):
            raise InputError(unknown_name("kind of invariants", invariants, get_args(Invariants)))
        if degree < 1:
            raise InputError(f"The degree of the polynomials of invariants is at least 1, not {degree}.")
        self.invariants, self.edge_width = invariants, edge_width
        self.envelope = None if cutoff is None else PolynomialEnvelope(cutoff)
        self.edge = _PolynomialNetwork(2 if oriented else 1, degree, edge_width, hidden, width)
        self.fibre = _PolynomialNetwork(1, degree, 0, hidden, width) if oriented else None

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, hidden=8, cutoff=4.0)

    def forward(self, vectors: Tensor, points: Tensor, graph: Graph) -> OrientationBasis:
        found = self._invariants(vectors, points, graph)  # [E, P, I]
        attributes = graph.edge_attr
        if attributes is not None:
            attributes = attributes.unsqueeze(1).expand(-1, found.shape[1], -1)  # [E, P, A]
        edges = self.edge(found, attributes)
        if self.envelope is not None:
            edges = edges * self.envelope(graph.lengths).unsqueeze(-1)
        loop = self.edge(found.new_zeros(1, found.shape[-1]), found.new_zeros(1, self.edge_width))
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
    """A convolution over positions, one over orientations, and a network of each feature: a ConvNeXt block.

    With kernels k that are linear maps of the bases::

        y_i(o) = Σ_j k(x_j - x_i, o) f_j(o) + k(0) f_i(o)        channel by channel
        z_i(o) = mean_o' k'(o·o') y_i(o') + b
        f_i(o) <- f_i(o) + s W_2 GELU(W_1 norm(z_i(o)))

    Args:
        channels: number C of channels.
        basis_width: number B of functions that the kernels are made of.
        orientations: number P; 1 leaves the second line out.
        widening: hidden channels of the network, as a multiple of C.
        layer_scale: where s, of each channel, starts; None leaves it out.

    Shapes:
        x: [N, P, C]. Returns the same.

    Source:
        Bekkers et al., ICLR 2024, arXiv:2310.02970, section 3 and figure 1, and its code. Differs: kernels are not
        rescaled by the first batch of a training.
    """

    def __init__(
        self, channels: int, basis_width: int, orientations: int, widening: int = 4, layer_scale: float | None = None
    ) -> None:
        super().__init__()
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
        y = self.convolve(x, basis, graph)
        y = self.second(nn.functional.gelu(self.first(self.norm(y))))
        if self.layer_scale is not None:
            y = y * self.layer_scale
        result: Tensor = x + y
        return result

    def convolve(self, x: Tensor, basis: OrientationBasis, graph: Graph) -> Tensor:
        """The two convolutions, [N, P, C] to the same."""
        weights = self.kernel(basis.edges).flatten(1).to(x.dtype)  # [E, P C]
        y = kernels.tensor_product_conv(x.flatten(1), graph.harmonics, weights, graph, self.paths).view_as(x)
        y = y + self.kernel(basis.loop) * x
        if self.fibre_kernel is not None and basis.fibre is not None:
            y = torch.einsum("nqc,pqc->npc", y, self.fibre_kernel(basis.fibre).to(y.dtype)) / x.shape[1]
        return y + self.bias
