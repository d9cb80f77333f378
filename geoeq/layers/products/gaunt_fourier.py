"""The Gaunt product in the two-dimensional Fourier basis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.geometry.harmonics import harmonics
from geoeq.layers.products.gaunt import GauntProduct, SphereProduct, quadrature

__all__ = ["GauntFourier", "GauntFourierProduct"]


class GauntFourier(SphereProduct):
    """``SphereProduct`` by Fourier coefficients in both angles, ``Σ_uv F_uv exp(i u θ) exp(i v φ)``.

    θ covers the whole circle, so signals are trigonometric polynomials, and their product is the convolution of their
    coefficients, computed by FFT. Harmonics of order m have only the frequency v = m, and all u up to l, so one
    constant matrix for each m is enough, real up to a factor of i for odd m.

    Args:
        degrees, lmax_out: as for ``SphereProduct``.

    Shapes:
        As ``SphereProduct``; samples are [..., P (φ), N (θ), C] with ``N = 2 Σ L + 1``.

    Source:
        Luo et al., ICLR 2024, arXiv:2401.10216, section 3.2. Differs: real harmonics throughout.
    """

    real_back: Tensor
    imaginary_back: Tensor
    feature_index: Tensor

    def __init__(self, degrees: Sequence[int], lmax_out: int | None = None) -> None:
        super().__init__(degrees, lmax_out)
        self.size = 2 * max(self.total, self.lmax_out) + 1
        self.num_phi = max(self.total, self.lmax_out) + self.lmax_out + 1  # orders above lmax_out may alias
        circle = torch.arange(self.size, dtype=torch.float64) * (2 * math.pi / self.size)
        for degree in {*self.degrees}:
            spectrum = torch.fft.fft(_legendre(degree, circle), dim=1, norm="forward")  # [L + 1, N (u), L + 1]
            table = torch.where(_odd(degree), spectrum.imag, spectrum.real)
            table[1:] /= 2  # cos(m φ) is half of exp(i m φ) and half of its conjugate
            # exp(i m φ) has the coefficient (x_m - i x_-m) times the table, and i for odd m.
            real = [-m if m % 2 else m for m in range(degree + 1)]
            self.register_buffer(f"real_{degree}", table, persistent=False)
            self.register_buffer(f"imaginary_{degree}", _signs(degree) * table, persistent=False)
            self.register_buffer(f"real_rows_{degree}", _signal_rows(degree, real), persistent=False)
            self.register_buffer(f"imaginary_rows_{degree}", _signal_rows(degree, [-m for m in real]), persistent=False)
        out, table = self.lmax_out, self._back_transform()
        self.register_buffer("real_back", table, persistent=False)
        self.register_buffer("imaginary_back", _signs(out) * table, persistent=False)
        components = [(degree, m) for degree in range(out + 1) for m in range(-degree, degree + 1)]
        index = [(((m < 0) ^ (m % 2)) * (out + 1) + abs(m)) * (out + 1) + degree for degree, m in components]
        self.register_buffer("feature_index", torch.tensor(index), persistent=False)

    def _back_transform(self) -> Tensor:
        """Return matrices from coefficients to degrees, [m, l, u]: half the integral over θ of wave times P sin θ."""
        theta, weight = quadrature(max(self.total, self.lmax_out) + 1)
        frequencies = torch.fft.fftfreq(self.size, 1 / self.size, dtype=torch.float64)
        angles = theta.unsqueeze(-1) * frequencies  # [B, N (u)]
        waves = torch.where(_odd(self.lmax_out), -angles.sin(), angles.cos())  # [L + 1, B, N]
        return (_legendre(self.lmax_out, theta) * weight[:, None]).mT @ waves

    def signal(self, x: Tensor) -> Tensor:
        degree = math.isqrt(x.shape[-2]) - 1
        parts = []
        for part in ("real", "imaginary"):
            rows = x.index_select(-2, getattr(self, f"{part}_rows_{degree}"))
            table: Tensor = getattr(self, f"{part}_{degree}")
            parts.append(table.to(x.dtype) @ rows.unflatten(-2, (degree + 1, degree + 1)))
        spectrum = torch.complex(*parts)  # [..., L + 1 (v), N (u), C]
        meridians = torch.fft.ifft(spectrum, dim=-2, norm="forward")  # over u first, because v has few values
        samples: Tensor = torch.fft.irfft(meridians, self.num_phi, dim=-3, norm="forward")
        return samples

    def features(self, signals: Tensor) -> Tensor:
        meridians = torch.fft.rfft(signals, dim=-3, norm="forward")[..., : self.lmax_out + 1, :, :]
        spectrum = torch.fft.fft(meridians, dim=-2, norm="forward")  # [..., L + 1 (v), N (u), C]
        real = self.real_back.to(signals.dtype) @ spectrum.real  # [..., L + 1 (m), L + 1 (l), C]
        imaginary = self.imaginary_back.to(signals.dtype) @ spectrum.imag
        return torch.stack([real, imaginary], dim=-4).flatten(-4, -2).index_select(-2, self.feature_index)


def _legendre(lmax: int, theta: Tensor) -> Tensor:
    """Return harmonics along a meridian: ``Y_l,m = P_m,l(θ) cos(m φ)`` and ``Y_l,-m = P_m,l(θ) sin(m φ)`` for m >= 0.

    Shapes:
        theta: [B] radians from the pole (e3nn's y axis). Returns [lmax + 1 (m), B, lmax + 1 (l)], 0 where l < m.
    """
    zero = torch.zeros_like(theta)
    values = harmonics(torch.stack([zero, theta.cos(), theta.sin()], dim=-1), torch.ones_like(theta), lmax)
    table = values.new_zeros(lmax + 1, len(theta), lmax + 1)
    for m in range(lmax + 1):
        for degree in range(m, lmax + 1):
            table[m, :, degree] = values[:, degree**2 + degree + m]
    return table


def _signal_rows(lmax: int, orders: Sequence[int]) -> Tensor:
    """Return the rows of features by m, then l, [M (lmax + 1)]; for l < abs(m) row 0, which is multiplied by 0."""
    rows = [d**2 + d + m if d >= abs(m) else 0 for m in orders for d in range(lmax + 1)]
    return torch.tensor(rows)


def _odd(lmax: int) -> Tensor:
    """Return which orders are odd: their harmonics are odd in θ, and their coefficients imaginary."""
    return (torch.arange(lmax + 1) % 2 == 1)[:, None, None]


def _signs(lmax: int) -> Tensor:
    """Return the signs of imaginary parts: -1 for even orders, 1 for odd orders (the factor i), 0 for order 0."""
    signs = torch.where(_odd(lmax), 1.0, -1.0).double()
    signs[0] = 0
    return signs


class GauntFourierProduct(GauntProduct):
    """``GauntProduct`` in the two-dimensional Fourier basis (``GauntFourier``).

    Args:
        channels, lmax, lmax_edge, lmax_out: as for ``EdgeProduct``; lmax_edge and lmax_out are lmax by default.

    Shapes:
        As ``GauntProduct``.

    Source:
        Luo et al., ICLR 2024, arXiv:2401.10216, sections 3.2 and 3.3.
    """

    def __init__(self, channels: int, lmax: int, lmax_edge: int | None = None, lmax_out: int | None = None) -> None:
        super().__init__(channels, lmax, lmax_edge, lmax_out, GauntFourier)
