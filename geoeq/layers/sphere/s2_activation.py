"""S2 activations for features in e3nn's layout."""

from __future__ import annotations

from typing import Self

from e3nn import o3
from torch import Tensor

from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.layer import Rowwise
from geoeq.layers.sphere.sphere_activation import GridSiLU, SeparableGridSiLU

__all__ = ["S2Activation", "SeparableS2Activation"]


class S2Activation(Rowwise):
    """SiLU of functions on the sphere, evaluated at the points of a grid.

    Equivariant up to an error that falls fast with the resolution: for coefficients of variance 1 and lmax = 2, about
    1e-2 with 8 latitudes, 3e-4 with 14, 1e-6 with 24 and 1e-8 with 30; for lmax = 4, 4e-3 with 18 and 2e-5 with 30.

    Args:
        lmax: highest degree.
        channels: number C of functions.
        resolution: number of latitudes and of longitudes, even; by default the smallest, ``2 (lmax + 1)``.

    Shapes:
        x: [N, C (lmax + 1)²], irreps ``Cx0e + Cx1o + Cx2e + ...``. Returns the same.

    Source:
        Cohen et al., ICLR 2018, arXiv:1801.10130; Passaro & Zitnick, ICML 2023, arXiv:2302.03655.
    """

    #: Equivariance error of the example.
    equivariance_error = 1e-6

    def __init__(self, lmax: int, channels: int, resolution: int | None = None) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.irreps_in = self.irreps_out = sphere_irreps(lmax, channels)
        self.activation = GridSiLU(lmax, resolution=resolution or 2 * (lmax + 1))

    @classmethod
    def example(cls) -> Self:
        return cls(lmax=2, channels=4, resolution=24)

    def forward(self, x: Tensor) -> Tensor:
        coefficients = to_coefficients(x, self.lmax, self.channels)  # [N, K, C]
        return from_coefficients(self.activation(coefficients, x[:, :0]), self.lmax)


class SeparableS2Activation(Rowwise):
    """``S2Activation`` whose output scalars are ``SiLU(s)`` of separate input scalars s.

    Args:
        lmax: highest degree.
        channels: number C of functions.
        resolution: resolution of the grid, as for ``S2Activation``; so is the error.

    Shapes:
        x: [N, C + C (lmax + 1)²], irreps ``2Cx0e + Cx1o + Cx2e + ...``: first the separate scalars, then the
        functions. Returns [N, C (lmax + 1)²], ``Cx0e + Cx1o + Cx2e + ...``.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.2.
    """

    #: Equivariance error of the example.
    equivariance_error = 1e-6

    def __init__(self, lmax: int, channels: int, resolution: int | None = None) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.irreps_out = sphere_irreps(lmax, channels)
        self.irreps_in = (o3.Irreps([(channels, "0e")]) + self.irreps_out).simplify()
        self.activation = SeparableGridSiLU(lmax, resolution=resolution or 2 * (lmax + 1))

    @classmethod
    def example(cls) -> Self:
        return cls(lmax=2, channels=4, resolution=24)

    def forward(self, x: Tensor) -> Tensor:
        scalars, rest = x[:, : self.channels], x[:, self.channels :]
        coefficients = to_coefficients(rest, self.lmax, self.channels)  # [N, K, C]
        return from_coefficients(self.activation(coefficients, scalars), self.lmax)
