"""Nonlinearities of functions on the sphere: SiLU on a grid, or gates; channels last and in e3nn's layout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import check_name, check_sizes
from geoeq.layers.chunked import chunked
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.layer import Rowwise
from geoeq.layers.sphere.s2_grid import Normalization, S2Grid, degree_order, order_degree

__all__ = [
    "GridSiLU",
    "S2Activation",
    "SeparableGridSiLU",
    "SeparableS2Activation",
    "SphereActivation",
    "SphereGate",
    "SphereNonlinearity",
    "grid_silu",
    "sphere_activation",
]


#: Rows per chunk: few enough that their values on the grid fit in the cache.
CHUNK = 64


def _grid_silu(x: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
    return torch.matmul(from_grid, torch.nn.functional.silu(torch.matmul(to_grid, x)))


def grid_silu(x: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
    """Compute ``from_grid @ silu(to_grid @ x)``, storing only x for derivatives of any order.

    Shapes:
        x: [N, K, C]. to_grid: [P, K]. from_grid: [K, P]. Returns [N, K, C].
    """
    return chunked(_grid_silu, [x], [to_grid, from_grid], CHUNK)


#: SiLU on a grid, SiLU on a grid with separate scalars, or gates (exactly equivariant).
SphereNonlinearity = Literal["s2", "separable_s2", "gate"]


class SphereActivation(nn.Module, ABC):
    """A map ``(x, scalars) -> x`` of the coefficients [N, K, C] of C functions on the sphere, and extra scalars.

    Attributes:
        extra: number of extra scalars for each channel.
    """

    extra: int

    @abstractmethod
    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        """Map coefficients [N, K, C] and scalars [N, extra * C] to [N, K, C]."""


class GridSiLU(SphereActivation):
    """SiLU of the values on a grid, equivariant up to an error that falls with the resolution.

    Args:
        lmax, mmax, resolution, normalization, rescale, by_order: as for ``S2Grid``.

    Shapes:
        x: [N, K, C]. scalars: [N, 0], ignored. Returns [N, K, C].

    Source:
        Cohen et al., ICLR 2018, arXiv:1801.10130; Passaro & Zitnick, ICML 2023, arXiv:2302.03655.
    """

    extra = 0

    def __init__(
        self,
        lmax: int,
        mmax: int | None = None,
        resolution: int | tuple[int, int] | None = None,
        normalization: Normalization = "component",
        rescale: bool = True,
        by_order: bool = False,
    ) -> None:
        super().__init__()
        self.grid = S2Grid(lmax, mmax, resolution, normalization, rescale, by_order)

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        return grid_silu(x, self.grid.to_grid.to(x.dtype), self.grid.from_grid.to(x.dtype))


class SeparableGridSiLU(GridSiLU):
    """``GridSiLU`` whose output scalars are ``SiLU(scalars)`` instead of the mean of the values.

    Args:
        lmax, mmax, resolution, normalization, rescale, by_order: as for ``S2Grid``.

    Shapes:
        x: [N, K, C]. scalars: [N, C]. Returns [N, K, C].

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.2.
    """

    extra = 1

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        rest = super().forward(x, scalars)[:, 1:]
        return torch.cat([nn.functional.silu(scalars).unsqueeze(1), rest], dim=1)


class SphereGate(SphereActivation):
    """SiLU of the scalars, and a sigmoid gate for each higher degree and channel; exactly equivariant.

    Args:
        lmax: highest degree.
        mmax: highest order; by default lmax.
        by_order: as for ``S2Grid``.

    Shapes:
        x: [N, K, C]. scalars: [N, lmax * C], degree by degree. Returns [N, K, C].

    Source:
        Weiler et al., NeurIPS 2018, arXiv:1807.02547.
    """

    degree: Tensor

    def __init__(self, lmax: int, mmax: int | None = None, by_order: bool = False) -> None:
        super().__init__()
        self.extra = lmax
        order = (order_degree if by_order else degree_order)(lmax, lmax if mmax is None else mmax)
        self.register_buffer("degree", torch.tensor([degree - 1 for degree, _ in order[1:]]), persistent=False)

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        first = nn.functional.silu(x[:, :1])
        if not self.extra:
            return first
        gates = scalars.sigmoid().unflatten(-1, (self.extra, -1))  # [N, lmax, C]
        return torch.cat([first, x[:, 1:] * gates.index_select(1, self.degree)], dim=1)


def sphere_activation(
    kind: SphereNonlinearity,
    lmax: int,
    mmax: int | None = None,
    resolution: int | tuple[int, int] | None = None,
    by_order: bool = False,
) -> SphereActivation:
    """Return the nonlinearity of this name, as in EquiformerV2.

    Raises:
        InputError: the name is unknown, or the grid is too small.
    """
    check_name("activation", kind, get_args(SphereNonlinearity))
    if kind == "gate":
        return SphereGate(lmax, mmax, by_order)
    activation = SeparableGridSiLU if kind == "separable_s2" else GridSiLU
    return activation(lmax, mmax, resolution, by_order=by_order)


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

    Raises:
        InputError: a number is out of range.

    Source:
        Cohen et al., ICLR 2018, arXiv:1801.10130; Passaro & Zitnick, ICML 2023, arXiv:2302.03655.
    """

    def __init__(self, lmax: int, channels: int, resolution: int | None = None) -> None:
        super().__init__()
        check_sizes(self, channels=channels, resolution=resolution)
        check_sizes(self, least=0, lmax=lmax)
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

    Raises:
        InputError: a number is out of range.

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.2.
    """

    def __init__(self, lmax: int, channels: int, resolution: int | None = None) -> None:
        super().__init__()
        check_sizes(self, channels=channels, resolution=resolution)
        check_sizes(self, least=0, lmax=lmax)
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
