"""The Gaunt product, a pointwise product of signals on the sphere, and its implementation by samples on a grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor, nn

from geoeq.errors import InputError, TensorError
from geoeq.geometry.harmonics import harmonics
from geoeq.graph import Graph
from geoeq.layers.irreps.linear import degree_index
from geoeq.layers.products.clebsch_gordan import degree_of, scaled_coupling
from geoeq.layers.products.product import EdgeProduct, checked_degree
from geoeq.layers.sphere.sphere_points import quadrature_points

__all__ = [
    "GauntGrid",
    "GauntGridProduct",
    "GauntProduct",
    "SphereProduct",
    "gaunt_factor",
    "quadrature",
]


def gaunt_factor(l1: int, l2: int, l3: int) -> float:
    """Return the ratio of the mean of ``Y_l1 Y_l2 Y_l3`` over the sphere to ``scaled_coupling(l1, l2, l3)``.

    Harmonics are "component" normalized; the ratio vanishes for odd l1 + l2 + l3. (The mean is an invariant tensor and
    so a multiple of the coupling. The ratio follows from the value at the pole, where only m = 0 is nonzero.)
    """
    pole = float(scaled_coupling(l1, l2, l3)[l1, l2, l3])
    return math.sqrt((2 * l1 + 1) * (2 * l2 + 1) / (2 * l3 + 1)) * pole if (l1 + l2 + l3) % 2 == 0 else 0.0


def quadrature(count: int) -> tuple[Tensor, Tensor]:
    """Return angles θ and weights of sum 1 for means over the sphere, exact to degree 2 count - 1 in cos θ."""
    nodes, weights = numpy.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes).acos(), torch.from_numpy(weights) / 2


class SphereProduct(nn.Module, ABC):
    """Pointwise product of signals on the sphere: ``z_l = ∫ Y_l Π_n (Σ Y_l' x^n_l')``, the mean over directions.

    The number of factors is arbitrary, so a many-body product takes one pass. The result is exact up to rounding.

    Args:
        degrees: highest degree of each factor.
        lmax_out: highest degree of the result; by default the sum of the factors' degrees.

    Shapes:
        factors: each [..., (L + 1)², C], C or 1 channels. Returns [..., (lmax_out + 1)², C].

    Raises:
        InputError: there are no factors, or a degree is negative or too high.
        TensorError: the number or the degrees of the factors are wrong.
    """

    def __init__(self, degrees: Sequence[int], lmax_out: int | None = None) -> None:
        super().__init__()
        if not degrees:
            raise InputError(f"{type(self).__name__} needs at least one factor; degrees is empty.")
        self.degrees = tuple(checked_degree("degrees", degree) for degree in degrees)
        self.total = sum(self.degrees)
        self.lmax_out = checked_degree("lmax_out", self.total if lmax_out is None else lmax_out)

    def forward(self, *factors: Tensor) -> Tensor:
        degrees = tuple(degree_of(factor, type(self).__name__) for factor in factors)
        if degrees != self.degrees:
            raise TensorError(f"{type(self).__name__}: factors have degrees {degrees}; expected {self.degrees}.")
        if any(factor.numel() == 0 for factor in factors):  # some FFT libraries refuse empty tensors
            shape = torch.broadcast_shapes(*[factor.shape[:-2] + factor.shape[-1:] for factor in factors])
            zero = torch.stack([factor.sum() for factor in factors]).sum()
            return zero.expand(*shape[:-1], (self.lmax_out + 1) ** 2, shape[-1])
        signals = self.signal(factors[0])
        for factor in factors[1:]:
            signals = signals * self.signal(factor)
        return self.features(signals)

    @abstractmethod
    def signal(self, x: Tensor) -> Tensor:
        """Return samples of a factor."""

    @abstractmethod
    def features(self, signals: Tensor) -> Tensor:
        """Return features of degrees up to lmax_out from samples of the product."""


class GauntProduct(EdgeProduct):
    """Product of features and harmonics as signals on the sphere, with weights for each degree of all three.

    ``z_l3 = w_l3 Σ_l1,l2 w_l1 w_l2 G_l1,l2,l3 (x_l1 ⊗ Y_l2)_l3 / n_l3``: one weight for each degree instead of one for
    each path, and no path of odd l1 + l2 + l3 (no cross product), so the product is equivariant to reflections.

    Args:
        channels, lmax, lmax_edge, lmax_out: as for ``EdgeProduct``; lmax_edge and lmax_out are lmax by default.
        product: class that multiplies the signals.

    Shapes:
        As ``EdgeProduct``; weights: [E, (L1 + 1 + L2 + 1 + L3 + 1) C], ordered by degree.

    Source:
        Luo et al., ICLR 2024, arXiv:2401.10216, section 3.3 (a path's weight is the product of those of its degrees).
    """

    norm: Tensor
    rows: Tensor

    def __init__(
        self, channels: int, lmax: int, lmax_edge: int | None, lmax_out: int | None, product: type[SphereProduct]
    ) -> None:
        lmax_edge = lmax if lmax_edge is None else checked_degree("lmax_edge", lmax_edge)
        super().__init__(channels, lmax, lmax_edge, lmax if lmax_out is None else lmax_out, "E(3)")
        with torch.device("cpu"):  # contains only constants
            self.product = product((self.lmax, self.lmax_edge), self.lmax_out)
            self._register_constants(channels)

    def _register_constants(self, channels: int) -> None:
        degrees = (self.lmax, self.lmax_edge, self.lmax_out)
        self.num_degrees = sum(degrees) + 3
        self.weight_numel = self.num_degrees * channels
        rows = [degree_index(degree) for degree in degrees]
        self.row_counts = [len(part) for part in rows]
        rows = [rows[0], rows[1] + self.lmax + 1, rows[2] + self.lmax + self.lmax_edge + 2]
        self.register_buffer("rows", torch.cat(rows), persistent=False)
        power = torch.zeros(
            self.lmax_out + 1, dtype=torch.float64
        )  # variance of a component of the unnormalized product
        for l1, l2, l3 in self.interactions:
            power[l3] += gaunt_factor(l1, l2, l3) ** 2
        norm = power.rsqrt().index_select(0, degree_index(self.lmax_out)).unsqueeze(-1)
        self.register_buffer("norm", norm, persistent=False)

    @property
    def expressivity(self) -> int:
        # The weight of a path is a product of three, so its logarithm is linear; the rank of that map is the dimension.
        incidence = numpy.zeros((len(self.interactions), self.num_degrees))
        for n, (l1, l2, l3) in enumerate(self.interactions):
            incidence[n, [l1, self.lmax + 1 + l2, self.lmax + self.lmax_edge + 2 + l3]] = 1
        return int(numpy.linalg.matrix_rank(incidence))

    def messages(self, x: Tensor, weights: Tensor, graph: Graph, envelope: Tensor | None = None) -> Tensor:
        weights = weights.reshape(-1, self.num_degrees, self.channels).index_select(1, self.rows)
        of_features, of_edge, of_result = weights.split(self.row_counts, dim=1)
        if envelope is not None:
            of_result = of_result * envelope.unsqueeze(-1)
        y = self.harmonics(graph).unsqueeze(-1) * of_edge  # [E, (L2 + 1)², C]
        result: Tensor = self.product(x * of_features, y) * (of_result * self.norm.to(x.dtype))
        return result


class GauntGrid(SphereProduct):
    """``SphereProduct`` by the values at points of the sphere.

    The grid is large enough that the integral against the highest harmonic of the result is exact. The transforms to
    the grid and back are one matrix product each, O(L⁴), which up to L = 6 is faster than separate transforms of θ and
    φ, O(L³).

    Args:
        degrees, lmax_out: as for ``SphereProduct``.

    Shapes:
        As ``SphereProduct``; samples are [..., P, C].

    Source:
        Xie et al. 2025, arXiv:2506.13523 (the Gaunt product by a spherical grid). Differs: Gauss-Legendre quadrature in
        the polar angle, with half the points.
    """

    from_grid: Tensor

    def __init__(self, degrees: Sequence[int], lmax_out: int | None = None) -> None:
        super().__init__(degrees, lmax_out)
        points, weights = quadrature_points(self.total + self.lmax_out)
        for degree in {*self.degrees}:
            self.register_buffer(f"to_grid_{degree}", _values(points, degree), persistent=False)
        self.register_buffer("from_grid", (_values(points, self.lmax_out) * weights[:, None]).mT, persistent=False)

    def signal(self, x: Tensor) -> Tensor:
        to_grid: Tensor = getattr(self, f"to_grid_{math.isqrt(x.shape[-2]) - 1}")
        return to_grid.to(x.dtype) @ x

    def features(self, signals: Tensor) -> Tensor:
        return self.from_grid.to(signals.dtype) @ signals


def _values(points: Tensor, lmax: int) -> Tensor:
    return harmonics(points, torch.ones(len(points), dtype=points.dtype), lmax)


class GauntGridProduct(GauntProduct):
    """``GauntProduct`` on a grid of the sphere (``GauntGrid``).

    Args:
        channels, lmax, lmax_edge, lmax_out: as for ``EdgeProduct``; lmax_edge and lmax_out are lmax by default.

    Shapes:
        As ``GauntProduct``.

    Source:
        Xie et al. 2025, arXiv:2506.13523.
    """

    def __init__(self, channels: int, lmax: int, lmax_edge: int | None = None, lmax_out: int | None = None) -> None:
        super().__init__(channels, lmax, lmax_edge, lmax_out, GauntGrid)
