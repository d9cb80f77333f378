"""The Gaunt product through samples on a grid of the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.layers.products.gaunt import GauntProduct, SphereProduct, legendre, quadrature, signal_rows

__all__ = ["GauntGrid", "GauntGridProduct"]


def _waves(lmax: int, count: int) -> Tensor:
    """cos(m φ) for m >= 0 and sin(|m| φ) for m < 0 at equal steps, [count, 2 lmax + 1]."""
    angle = torch.arange(count, dtype=torch.float64).unsqueeze(-1) * (2 * math.pi / count)
    orders = torch.arange(-lmax, lmax + 1)
    return torch.where(orders < 0, (angle * -orders).sin(), (angle * orders).cos())


class GauntGrid(SphereProduct):
    """``SphereProduct`` through its values at points of the sphere.

    The grid is Gauss-Legendre in θ and uniform in φ, large enough that the integral against the highest harmonic of the
    result is exact. Degrees and orders are transformed one after the other, O(L³) in all.

    Args:
        degrees, lmax_out: of ``SphereProduct``.

    Shapes:
        As ``SphereProduct``; samples are [..., P (φ), T (θ), C].

    Source:
        Xie et al. 2025, arXiv:2506.13523, section on the Gaunt product by a spherical grid.
    """

    back_phi: Tensor
    back_theta: Tensor
    places: Tensor

    def __init__(self, degrees: Sequence[int], lmax_out: int | None = None) -> None:
        super().__init__(degrees, lmax_out)
        highest = self.total + self.lmax_out  # of what is integrated
        self.num_theta, self.num_phi = highest // 2 + 1, highest + 1
        theta, weight = quadrature(self.num_theta)
        for degree in {*self.degrees, self.lmax_out}:
            orders = range(-degree, degree + 1)
            table = legendre(degree, theta)[torch.tensor([abs(m) for m in orders])]  # [2 L + 1, T, L + 1]
            self.register_buffer(f"rows_{degree}", signal_rows(degree, orders), persistent=False)
            self.register_buffer(f"theta_{degree}", table, persistent=False)
            self.register_buffer(f"phi_{degree}", _waves(degree, self.num_phi), persistent=False)
        out = self.lmax_out
        self.register_buffer("back_phi", _waves(out, self.num_phi).mT / self.num_phi, persistent=False)
        self.register_buffer("back_theta", (getattr(self, f"theta_{out}") * weight[:, None]).mT, persistent=False)
        places = torch.tensor([(m + out) * (out + 1) + d for d in range(out + 1) for m in range(-d, d + 1)])
        self.register_buffer("places", places, persistent=False)

    def signal(self, x: Tensor) -> Tensor:
        degree = math.isqrt(x.shape[-2]) - 1
        theta, phi, rows = (getattr(self, f"{name}_{degree}") for name in ("theta", "phi", "rows"))
        ordered = x.index_select(-2, rows).unflatten(-2, (2 * degree + 1, degree + 1))  # [..., 2L + 1, L + 1, C]
        meridians = theta.to(x.dtype) @ ordered  # [..., 2L + 1, T, C]
        samples: Tensor = (phi.to(x.dtype) @ meridians.flatten(-2)).unflatten(-1, (self.num_theta, x.shape[-1]))
        return samples  # [..., P, T, C]

    def features(self, signals: Tensor) -> Tensor:
        size = signals.shape[-2:]
        orders = (self.back_phi.to(signals.dtype) @ signals.flatten(-2)).unflatten(-1, size)  # [..., 2L + 1, T, C]
        ordered = self.back_theta.to(signals.dtype) @ orders  # [..., 2L + 1, L + 1, C]
        result: Tensor = ordered.flatten(-3, -2).index_select(-2, self.places)
        return result


class GauntGridProduct(GauntProduct):
    """``GauntProduct`` on a grid of the sphere (``GauntGrid``).

    Args:
        channels, lmax, lmax_edge, lmax_out: of ``EdgeProduct``.

    Shapes:
        As ``GauntProduct``.

    Source:
        Xie et al. 2025, arXiv:2506.13523.
    """

    def __init__(self, channels: int, lmax: int, lmax_edge: int | None = None, lmax_out: int | None = None) -> None:
        super().__init__(channels, lmax, lmax_edge, lmax_out, GauntGrid)
