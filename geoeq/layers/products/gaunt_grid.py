"""The Gaunt product by samples on a grid of the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.graph import harmonics
from geoeq.layers.products.gaunt import GauntProduct, SphereProduct
from geoeq.layers.sphere.sphere_points import quadrature_points

__all__ = ["GauntGrid", "GauntGridProduct"]


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
