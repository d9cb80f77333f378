"""The product of signals on the sphere, and what its two forms (grid, Fourier) share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy
import torch
from torch import Tensor, nn

from geoeq.errors import InputError, TensorError
from geoeq.graph import Graph
from geoeq.layers.irreps.linear import degree_index
from geoeq.layers.products.clebsch_gordan import degree_of, scaled_coupling
from geoeq.layers.products.product import EdgeProduct, Triple, checked_degree, product_paths

__all__ = ["GauntProduct", "SphereProduct", "gaunt_factor", "quadrature"]


def gaunt_factor(l1: int, l2: int, l3: int) -> float:
    """The mean of ``Y_l1 Y_l2 Y_l3`` over the sphere is this number times ``scaled_coupling(l1, l2, l3)``.

    With "component" normalised harmonics, it vanishes where l1 + l2 + l3 is odd. (The mean is an invariant tensor, so
    a multiple of the coupling; the multiple is read off at the pole, where all but m = 0 vanish.)
    """
    pole = float(scaled_coupling(l1, l2, l3)[l1, l2, l3])
    return math.sqrt((2 * l1 + 1) * (2 * l2 + 1) / (2 * l3 + 1)) * pole if (l1 + l2 + l3) % 2 == 0 else 0.0


def quadrature(count: int) -> tuple[Tensor, Tensor]:
    """Angles θ and weights of sum 1: the mean over the sphere of polynomials in ``cos θ`` to degree ``2 count - 1``."""
    nodes, weights = numpy.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes).acos(), torch.from_numpy(weights) / 2


class SphereProduct(nn.Module, ABC):
    """Pointwise product of signals on the sphere: ``z_l = ∫ Y_l Π_n (Σ Y_l' x^n_l')``, the mean over directions.

    Any number of factors, so a many-body product takes one pass. Exact: the result has no error but rounding.

    Args:
        degrees: highest degree of each factor.
        lmax_out: highest degree of the result; by default the sum of those of the factors.

    Shapes:
        factors: each [..., (L + 1)², C], C or 1 channels. Returns [..., (lmax_out + 1)², C].

    Raises:
        InputError: there is no factor, or a degree is negative or too high.
        TensorError: factors are of other degrees, or of another number.
    """

    def __init__(self, degrees: Sequence[int], lmax_out: int | None = None) -> None:
        super().__init__()
        if not degrees:
            raise InputError(f"{type(self).__name__} multiplies at least one factor; degrees is empty.")
        self.degrees = tuple(checked_degree("degrees", degree) for degree in degrees)
        self.total = sum(self.degrees)
        self.lmax_out = checked_degree("lmax_out", self.total if lmax_out is None else lmax_out)

    def forward(self, *factors: Tensor) -> Tensor:
        found = tuple(degree_of(factor, type(self).__name__) for factor in factors)
        if found != self.degrees:
            raise TensorError(f"{type(self).__name__}: factors of degree {found} where {self.degrees} were announced.")
        if any(factor.numel() == 0 for factor in factors):  # a transform of nothing is an error in some libraries
            shape = torch.broadcast_shapes(*[factor.shape[:-2] + factor.shape[-1:] for factor in factors])
            nothing = torch.stack([factor.sum() for factor in factors]).sum()
            return nothing.expand(*shape[:-1], (self.lmax_out + 1) ** 2, shape[-1])
        signals = self.signal(factors[0])
        for factor in factors[1:]:
            signals = signals * self.signal(factor)
        return self.features(signals)

    @abstractmethod
    def signal(self, x: Tensor) -> Tensor:
        """Samples of a factor."""

    @abstractmethod
    def features(self, signals: Tensor) -> Tensor:
        """Features of the degrees to lmax_out from samples of the product."""


class GauntProduct(EdgeProduct):
    """Features times harmonics as signals on the sphere, with weights for each degree of features, edge and result.

    ``z_l3 = w_l3 Σ_l1,l2 w_l1 w_l2 G_l1,l2,l3 (x_l1 ⊗ Y_l2)_l3 / n_l3``: a number for each degree in place of
    one for each path, and no path of odd l1 + l2 + l3 (no cross product), so reflections are respected.

    Args:
        channels, lmax, lmax_edge, lmax_out: of ``EdgeProduct``; lmax_edge and lmax_out are lmax by default.
        product: how the signals are multiplied.

    Shapes:
        As ``EdgeProduct``; weights: [E, (L1 + 1 + L2 + 1 + L3 + 1) C], degree after degree.

    Source:
        Luo et al., ICLR 2024, arXiv:2401.10216, section 3.3 (weights of a path as products of those of its degrees).
    """

    norm: Tensor
    rows: Tensor

    def __init__(
        self, channels: int, lmax: int, lmax_edge: int | None, lmax_out: int | None, product: type[SphereProduct]
    ) -> None:
        lmax_edge = lmax if lmax_edge is None else checked_degree("lmax_edge", lmax_edge)
        super().__init__(channels, lmax, lmax_edge, lmax if lmax_out is None else lmax_out, "E(3)")
        with torch.device("cpu"):  # nothing but constants
            self.product = product((self.lmax, self.lmax_edge), self.lmax_out)
            self._constants(channels)

    def _constants(self, channels: int) -> None:
        degrees = (self.lmax, self.lmax_edge, self.lmax_out)
        self.num_degrees = sum(degrees) + 3
        self.weight_numel = self.num_degrees * channels
        rows = [degree_index(degree) for degree in degrees]
        self.row_counts = [len(part) for part in rows]
        rows = [rows[0], rows[1] + self.lmax + 1, rows[2] + self.lmax + self.lmax_edge + 2]
        self.register_buffer("rows", torch.cat(rows), persistent=False)
        power = torch.zeros(self.lmax_out + 1, dtype=torch.float64)  # variance of a component of the bare product
        for l1, l2, l3 in self.interactions:
            power[l3] += gaunt_factor(l1, l2, l3) ** 2
        norm = power.rsqrt().index_select(0, degree_index(self.lmax_out)).unsqueeze(-1)
        self.register_buffer("norm", norm, persistent=False)

    @property
    def interactions(self) -> list[Triple]:
        return product_paths(self.lmax, self.lmax_edge, self.lmax_out, "E(3)")

    @property
    def expressivity(self) -> int:
        # The weight of a path is a product of three: logarithms are linear, and their rank is the dimension.
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
