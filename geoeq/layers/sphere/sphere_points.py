"""Points on the sphere, for means over directions."""

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
    """Directions whose weighted mean is exact for all polynomials of a degree: Gauss-Legendre in z, uniform around it.

    The error of other smooth functions falls faster than any power of the degree.

    Shapes:
        Returns points [P, 3] and weights [P], float64; weights sum to 1, P is about degree² / 2.

    Raises:
        InputError: the degree is negative.
    """
    if degree < 0:
        raise InputError(f"The degree of a quadrature is at least 0, not {degree}.")
    heights, weights = (torch.from_numpy(value) for value in np.polynomial.legendre.leggauss(degree // 2 + 1))
    angles = torch.arange(degree + 1, dtype=torch.float64) * (2 * math.pi / (degree + 1))
    radius = (1 - heights.square()).sqrt().unsqueeze(-1)  # [latitudes, 1]
    parts = radius * angles.cos(), radius * angles.sin(), heights.unsqueeze(-1).expand(-1, degree + 1)
    points = torch.stack(parts, dim=-1).reshape(-1, 3)
    return points, (weights / 2).repeat_interleave(degree + 1) / (degree + 1)


@constant
def fibonacci_points(count: int) -> Tensor:
    """The published points: a Fibonacci spiral, each point as long as its share of the sphere is large.

    Shapes:
        Returns [count, 3] float64; the mean length is 1.

    Raises:
        InputError: count is not positive.

    Source:
        Zitnick et al., NeurIPS 2022, arXiv:2206.14331, and its code, which eSCN takes over. The lengths enter the
        harmonics of the points too, as ``r^l``.
    """
    if count < 1:
        raise InputError(f"There must be at least one point on the sphere, not {count}.")
    index = torch.arange(count, dtype=torch.float64)
    angle = 4 * math.pi * index / (1 + math.sqrt(5))
    height = 1 - (2 * index + 1) / count
    radius = (1 - height.square()).sqrt()
    points = torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=-1)
    crowd = (-torch.cdist(points, points).square() / 0.15).exp().sum(-1, keepdim=True)
    return points * (count / crowd / (1 / crowd).sum())


@constant
def spread_points(count: int) -> Tensor:
    """Directions whose mean is nearly that over all: where points come to rest that repel each other.

    Each repels the others by a Gaussian of their distance, ``exp(-count |o - o'|² / 20)``, which weighs the errors of
    means of harmonics, those of low degrees most; the start is a Fibonacci spiral.

    Shapes:
        Returns [count, 3] float64, unit vectors.

    Raises:
        InputError: count is not positive.
    """
    start = fibonacci_points(count)
    with torch.inference_mode(False), torch.enable_grad():
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
        for _ in range(4):  # Newton's steps to a mean of zero, which the search comes near to
            result = torch.nn.functional.normalize(result - 1.5 * result.mean(0), dim=-1)
        return result


def point_harmonics(points: Tensor, lmax: int) -> Tensor:
    """Harmonics of points, "component" normalised; with ``r^l`` where a point is not of unit length.

    Shapes:
        points: [P, 3]. Returns [P, (lmax + 1)²].
    """
    result: Tensor = o3.spherical_harmonics([*range(lmax + 1)], points, normalize=False, normalization="component")
    return result
