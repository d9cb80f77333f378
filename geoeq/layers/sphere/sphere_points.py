"""Sets of points on the sphere for averages over directions."""

from __future__ import annotations

import math

import numpy as np
import torch
from e3nn import o3
from torch import Tensor

from geoeq.constants import constant
from geoeq.errors import InputError

__all__ = ["fibonacci_points", "point_harmonics", "quadrature_points", "spread_points"]


@constant
def quadrature_points(degree: int) -> tuple[Tensor, Tensor]:
    """Return a quadrature that is exact for polynomials of this degree: Gauss-Legendre in z, uniform around z.

    For other smooth functions, the error falls faster than any power of the degree.

    Shapes:
        Returns points [P, 3] and weights [P], float64; weights sum to 1, P is about degree² / 2.

    Raises:
        InputError: the degree is negative.
    """
    if degree < 0:
        raise InputError(f"The degree of a quadrature must be at least 0, not {degree}.")
    heights, weights = (torch.from_numpy(value) for value in np.polynomial.legendre.leggauss(degree // 2 + 1))
    angles = torch.arange(degree + 1, dtype=torch.float64) * (2 * math.pi / (degree + 1))
    radius = (1 - heights.square()).sqrt().unsqueeze(-1)  # [latitudes, 1]
    parts = radius * angles.cos(), radius * angles.sin(), heights.unsqueeze(-1).expand(-1, degree + 1)
    points = torch.stack(parts, dim=-1).reshape(-1, 3)
    return points, (weights / 2).repeat_interleave(degree + 1) / (degree + 1)


@constant
def fibonacci_points(count: int) -> Tensor:
    """Return the published points: a Fibonacci spiral, with lengths proportional to the area per point.

    Shapes:
        Returns [count, 3] float64; the mean length is 1.

    Raises:
        InputError: count is not positive.

    Source:
        Zitnick et al., NeurIPS 2022, arXiv:2206.14331, and its code, which eSCN reuses. The lengths also
        enter the harmonics of the points, as ``r^l``.
    """
    if count < 1:
        raise InputError(f"There must be at least one point on the sphere, not {count}.")
    index = torch.arange(count, dtype=torch.float64)
    angle = 4 * math.pi * index / (1 + math.sqrt(5))
    height = 1 - (2 * index + 1) / count
    radius = (1 - height.square()).sqrt()
    points = torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)
    density = (-torch.cdist(points, points).square() / 0.15).exp().sum(-1, keepdim=True)
    return points * (count / density / (1 / density).sum())


@constant
def spread_points(count: int) -> Tensor:
    """Return evenly spread directions: the equilibrium of points that repel each other.

    The repulsion is a Gaussian of the distance, ``exp(-count |o - o'|² / 20)``, which weights the errors of averages
    of harmonics, low degrees most. The minimization starts from a Fibonacci spiral.

    Shapes:
        Returns [count, 3] float64, unit vectors.

    Raises:
        InputError: count is not positive.
    """
    start = fibonacci_points(count)
    with torch.enable_grad():
        points = start.clone().requires_grad_()
        i, j = torch.triu_indices(count, count, 1)
        optimizer = torch.optim.LBFGS(
            [points], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
        )

        def energy() -> Tensor:
            optimizer.zero_grad()
            units = torch.nn.functional.normalize(points, dim=-1)
            total: Tensor = (-count / 20 * (units[i] - units[j]).square().sum(-1)).exp().sum().log1p()
            total.backward()
            return total

        optimizer.step(energy)
        result = torch.nn.functional.normalize(points.detach(), dim=-1)
        for _ in range(4):  # Newton steps to a mean of exactly zero
            result = torch.nn.functional.normalize(result - 1.5 * result.mean(0), dim=-1)
        return result


def point_harmonics(points: Tensor, lmax: int) -> Tensor:
    """Return the harmonics of points, "component" normalized, times ``r^l`` if points are not of unit length.

    Shapes:
        points: [P, 3]. Returns [P, (lmax + 1)²].
    """
    result: Tensor = o3.spherical_harmonics([*range(lmax + 1)], points, normalize=False, normalization="component")
    return result
