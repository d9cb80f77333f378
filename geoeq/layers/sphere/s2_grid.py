"""Transforms between coefficients of functions on the sphere and their values on a grid."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from e3nn import o3
from torch import Tensor, nn

from geoeq.constants import constant
from geoeq.errors import InputError, check_name

__all__ = ["Normalization", "S2Grid", "degree_order", "grid_resolution", "order_degree"]

#: Normalizations of e3nn: "component" gives values of the size of the coefficients, "integral" orthonormal harmonics.
Normalization = Literal["component", "norm", "integral"]


def degree_order(lmax: int, mmax: int) -> list[tuple[int, int]]:
    """Return ``(l, m)`` of the coefficients with ``|m| <= mmax``, degree by degree."""
    return [(degree, m) for degree in range(lmax + 1) for m in range(-min(degree, mmax), min(degree, mmax) + 1)]


def order_degree(lmax: int, mmax: int) -> list[tuple[int, int]]:
    """Return ``(l, m)`` of the same coefficients, order by order: m = 0, then +1 of every degree, -1, +2, -2, ..."""
    orders = [0, *(sign * m for m in range(1, mmax + 1) for sign in (1, -1))]
    return [(degree, m) for m in orders for degree in range(abs(m), lmax + 1)]


def grid_resolution(lmax: int, mmax: int) -> tuple[int, int]:
    """Return the numbers of latitudes and longitudes of the smallest grid for these degrees and orders."""
    return 2 * (lmax + 1), 2 * (mmax + 1) + 1 if lmax == mmax else 2 * mmax + 1


@constant
def _matrices(
    lmax: int, mmax: int, resolution: tuple[int, int], normalization: str, rescale: bool, by_order: bool
) -> tuple[Tensor, Tensor]:
    forward = o3.ToS2Grid(lmax, resolution, normalization=normalization)
    inverse = o3.FromS2Grid(resolution, lmax, normalization=normalization)
    to_grid = torch.einsum("mbi,am->bai", forward.shb, forward.sha).flatten(0, 1)  # [P, (L + 1)²]
    from_grid = torch.einsum("am,mbi->iba", inverse.sha, inverse.shb).flatten(1)  # [(L + 1)², P]
    kept = order_degree(lmax, mmax) if by_order else degree_order(lmax, mmax)
    index = torch.tensor([degree * (degree + 1) + m for degree, m in kept])
    to_grid, from_grid = to_grid[:, index], from_grid[index]
    if rescale:  # compensate for the orders that a degree lacks
        factors = [math.sqrt((2 * degree + 1) / (2 * min(degree, mmax) + 1)) for degree, _ in kept]
        scale = torch.tensor(factors, dtype=torch.float64)
        to_grid, from_grid = to_grid * scale, from_grid * scale.unsqueeze(-1)
    return to_grid.contiguous(), from_grid.contiguous()


class S2Grid(nn.Module):
    """Two constant matrices: from coefficients to values on a grid of the sphere, and back.

    Coefficients have K components (l, m), those with ``|m| <= mmax``, and any number of channels in the last
    dimension; each direction is one matrix product. The inverse is exact for functions that the grid can represent:
    ``from_grid @ to_grid`` is the identity without rescaling. A nonlinearity of the values creates higher degrees,
    which a finite grid aliases to lower ones; this error falls fast with the resolution.

    Args:
        lmax: highest degree.
        mmax: highest order; by default lmax.
        resolution: number of latitudes (even, at least 2 (lmax + 1)) and of longitudes, or one number for both;
            by default ``grid_resolution``, the smallest that holds the coefficients.
        normalization: normalization of e3nn: "component", "norm" or "integral".
        rescale: whether to multiply degrees above mmax by ``sqrt((2l + 1) / (2 mmax + 1))``, in both directions.
        by_order: whether coefficients are sorted order by order (``order_degree``) instead of degree by degree
            (``degree_order``).

    Shapes:
        to_grid: [P, K] float64, point index latitude * longitudes + longitude. from_grid: [K, P].

    Raises:
        InputError: mmax is not between 0 and lmax, the grid is too small, or the normalization is unknown.

    Source:
        Passaro & Zitnick, ICML 2023, arXiv:2302.03655; Liao et al., ICLR 2024, arXiv:2306.12059, section
        4.2. The points and quadrature weights are e3nn's.
    """

    to_grid: Tensor
    from_grid: Tensor

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
        mmax = lmax if mmax is None else mmax
        if not 0 <= mmax <= lmax:
            raise InputError(f"mmax must lie between 0 and lmax = {lmax}, not {mmax}.")
        check_name("normalization", normalization, get_args(Normalization))
        if isinstance(resolution, int):
            resolution = (resolution, resolution)
        resolution = resolution or grid_resolution(lmax, mmax)
        if resolution[0] % 2 or resolution[0] < 2 * (lmax + 1) or resolution[1] < 2 * mmax + 1:
            raise InputError(
                f"A grid of {resolution[0]} x {resolution[1]} cannot hold lmax = {lmax}, mmax = {mmax}: it needs an "
                f"even number of latitudes, at least {2 * (lmax + 1)}, and at least {2 * mmax + 1} longitudes."
            )
        self.lmax, self.mmax, self.resolution = lmax, mmax, resolution
        self.options = normalization, rescale, by_order
        to_grid, from_grid = _matrices(lmax, mmax, resolution, normalization, rescale, by_order)
        self.register_buffer("to_grid", to_grid, persistent=False)
        self.register_buffer("from_grid", from_grid, persistent=False)

    def finer(self, factor: int = 2) -> S2Grid:
        """Return a grid for the same coefficients with ``factor`` times as many latitudes and longitudes."""
        latitudes, longitudes = self.resolution
        grid = S2Grid(self.lmax, self.mmax, (factor * latitudes, factor * longitudes), *self.options)
        return grid.to(self.to_grid.device)

    def sample(self, x: Tensor) -> Tensor:
        """Return the values on the grid [..., P, C] of coefficients [..., K, C]."""
        return torch.matmul(self.to_grid.to(x.dtype), x)

    def project(self, values: Tensor) -> Tensor:
        """Return the coefficients [..., K, C] of values on the grid [..., P, C]."""
        return torch.matmul(self.from_grid.to(values.dtype), values)
