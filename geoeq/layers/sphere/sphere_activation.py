"""Nonlinearities of functions on the sphere, channels last: on a grid, on a grid with scalars apart, or by gates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from geoeq.errors import InputError, unknown_name
from geoeq.layers.chunked import chunked
from geoeq.layers.sphere.s2_grid import Normalization, S2Grid, degree_order, order_degree

__all__ = [
    "GridSiLU",
    "SeparableGridSiLU",
    "SphereActivation",
    "SphereGate",
    "SphereNonlinearity",
    "grid_silu",
    "sphere_activation",
]


#: rows at a time, so that their values on the grid stay in the cache.
CHUNK = 64


def _plain(x: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
    return torch.matmul(from_grid, torch.nn.functional.silu(torch.matmul(to_grid, x)))


def grid_silu(x: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
    """``from_grid @ silu(to_grid @ x)``; only x is kept for the derivatives, of any order.

    Shapes:
        x: [N, K, C]. to_grid: [P, K]. from_grid: [K, P]. Returns [N, K, C].
    """
    return chunked(_plain, [x], [to_grid, from_grid], CHUNK)


#: On a grid, on a grid with scalars apart, or gates (exactly equivariant).
SphereNonlinearity = Literal["s2", "separable_s2", "gate"]


class SphereActivation(nn.Module, ABC):
    """``(x, scalars) -> x``: coefficients [N, K, C] of C functions on the sphere, and extra scalars.

    Attributes:
        extra: number of extra scalars that it needs for each channel.
    """

    extra: int

    @abstractmethod
    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        """[N, K, C] and [N, extra * C] to [N, K, C]."""


class GridSiLU(SphereActivation):
    """SiLU of the values on a grid; symmetric to an error that falls with the grid's resolution.

    Args:
        lmax, mmax, resolution, normalization, rescale, by_order: of ``S2Grid``.

    Shapes:
        x: [N, K, C]. scalars: [N, 0], not used. Returns [N, K, C].

    Source:
        Cohen et al., ICLR 2018, arXiv:1801.10130; Passaro & Zitnick, ICML 2023, arXiv:2302.03655.
    """

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
        self.extra = 0

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        return grid_silu(x, self.grid.to_grid.to(x.dtype), self.grid.from_grid.to(x.dtype))


class SeparableGridSiLU(GridSiLU):
    """As ``GridSiLU``, but the new scalars are ``SiLU(scalars)`` and not the mean of the values.

    Args:
        lmax, mmax, resolution, normalization, rescale, by_order: of ``S2Grid``.

    Shapes:
        x: [N, K, C]. scalars: [N, C]. Returns [N, K, C].

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.2.
    """

    def __init__(
        self,
        lmax: int,
        mmax: int | None = None,
        resolution: int | tuple[int, int] | None = None,
        normalization: Normalization = "component",
        rescale: bool = True,
        by_order: bool = False,
    ) -> None:
        super().__init__(lmax, mmax, resolution, normalization, rescale, by_order)
        self.extra = 1

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        rest = super().forward(x, scalars)[:, 1:]
        return torch.cat([nn.functional.silu(scalars).unsqueeze(1), rest], dim=1)


class SphereGate(SphereActivation):
    """SiLU of the scalars; every higher degree of a channel times the sigmoid of a scalar of its own. Exact.

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
    """The nonlinearity of that name, as EquiformerV2 takes it.

    Raises:
        InputError: the name is none of these, or the grid is too small.
    """
    if kind not in get_args(SphereNonlinearity):
        raise InputError(unknown_name("activation", kind, get_args(SphereNonlinearity)))
    if kind == "gate":
        return SphereGate(lmax, mmax, by_order)
    made = SeparableGridSiLU if kind == "separable_s2" else GridSiLU
    return made(lmax, mmax, resolution, by_order=by_order)
