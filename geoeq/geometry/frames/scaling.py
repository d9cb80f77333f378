"""Multidimensional scaling: coordinates of points from their distances, for many structures at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.geometry.frames.eigenvectors import eigenvectors
from geoeq.geometry.frames.frames import frames_gap
from geoeq.pointers import batch_from_ptr

__all__ = ["Scaling", "multidimensional_scaling", "spread_landmarks"]

#: Fraction of the largest eigenvalue below which an eigenvalue is rounding: a thickness of 3e-7 of the length.
_NEGLIGIBLE = 1e-13


class Scaling(NamedTuple):
    """Coordinates, and how well they are determined.

    Shapes:
        coordinates: [N, D], with the centroid of each graph at the origin and the axis of the largest spread first;
        the signs of axes are arbitrary. spread: [G, D], mean squares of the coordinates, descending. gap: [G], the
        smallest difference of two of them relative to the largest (``frames_gap``): at 0 axes are not unique. lost:
        [G], between 0 and 1, the fraction of the spectrum that D coordinates cannot represent: 0 for points in D
        dimensions.
    """

    coordinates: Tensor
    spread: Tensor
    gap: Tensor
    lost: Tensor


def multidimensional_scaling(squares: Tensor, landmarks: Tensor, ptr: Tensor, dimensions: int = 3) -> Scaling:
    """Return coordinates by classical scaling of landmarks, relative to which distances determine all other points.

    With δ the squared distances of a point to the K landmarks of its graph, Δ those between the landmarks, J the
    centring of landmarks, and V the D leading eigenvectors of ``B = -J Δ J / 2``::

        b = -(δ - mean Δ) J / 2        x = b V L⁻ᵀ        L Lᵀ = Vᵀ B V

    Then the centroid of all points is moved to the origin, and their principal axes become the axes. For distances of
    points in D dimensions that are spanned by their landmarks, the result is an isometry for any choice of landmarks:
    x Vᵀ B V is Nyström's formula, exact for a matrix of rank D, and so are its derivatives of any order, which do not
    depend on those of V. It then equals the principal-axis coordinates of the points themselves, up to signs. For other
    distances x is that of landmark scaling in its principal axes; with all points as landmarks it is classical scaling.
    Coordinates of eigenvalues that are negative, or zero up to rounding, are zero, and so are their derivatives.

    Computed in float64. The derivatives of axes stay finite where spreads are equal (``eigenvectors``).

    Args:
        squares: squared distances of each point to the landmarks of its graph; any symmetric distance.
        landmarks: indices of the points that are landmarks, -1 for none; at least D + 1 of them if there are that many
            points.
        ptr: first point of each graph.
        dimensions: number D of coordinates.

    Shapes:
        squares: [N, K]. landmarks: [G, K] int64. ptr: [G + 1].

    Source:
        de Silva and Tenenbaum, Sparse multidimensional scaling using landmark points, 2004; Torgerson,
        Psychometrika 17, 401 (1952). Differs: L instead of the square roots of the eigenvalues, which gives the
        same after the rotation to principal axes.
    """
    exact, num_graphs = squares.double(), len(landmarks)
    batch = batch_from_ptr(ptr, len(squares))
    real = (landmarks >= 0).to(exact)  # [G, K]
    number = real.sum(-1, keepdim=True).clamp(min=1)
    if len(squares):
        between = exact[landmarks.clamp(min=0)] * real.unsqueeze(1) * real.unsqueeze(2)  # [G, K, K]
    else:
        between = exact.new_zeros(*landmarks.shape, landmarks.shape[1])
    mean = between.sum(-1) / number  # [G, K]
    total = mean.sum(-1, keepdim=True) / number  # [G, 1]
    gram = mean.unsqueeze(1) + mean.unsqueeze(2) - between - total.unsqueeze(2)
    gram = gram * real.unsqueeze(1) * real.unsqueeze(2) / 2

    values, vectors = eigenvectors(gram)
    size = min(dimensions, values.shape[1])
    kept = values[:, :size] > _NEGLIGIBLE * values[:, :1].clamp(min=torch.finfo(torch.float64).tiny)  # [G, D]
    leading = vectors[:, :, :size] * kept.unsqueeze(1)  # [G, K, D]
    inner = leading.mT @ gram @ leading + torch.diag_embed((~kept).to(exact))
    basis = torch.linalg.solve_triangular(torch.linalg.cholesky(inner), leading.mT, upper=False).mT  # [G, K, D]
    products = (mean[batch] - exact) * real[batch] / 2  # [N, K]
    products = (products - (products.sum(-1) / number[batch, 0])[:, None]) * real[batch]
    points = (products.unsqueeze(1) @ basis[batch]).squeeze(1)  # [N, D]
    if size < dimensions:
        points = torch.cat([points, points.new_zeros(len(points), dimensions - size)], dim=1)

    count = ptr.diff().clamp(min=1).to(exact)
    centre = points.new_zeros(num_graphs, dimensions).index_add(0, batch, points) / count[:, None]
    points = points - centre[batch]
    outer = points.unsqueeze(2) * points.unsqueeze(1)  # [N, D, D]
    covariance = outer.new_zeros(num_graphs, dimensions, dimensions).index_add(0, batch, outer)
    spread, axes = eigenvectors(covariance / count[:, None, None])
    coordinates = (points.unsqueeze(1) @ axes[batch]).squeeze(1)

    with torch.no_grad():
        spread = spread.clamp(min=0)
        weight = values.abs()
        held = (weight[:, :size] * kept).sum(-1)
        total_weight = weight.sum(-1)
        lost = torch.where(total_weight > 0, 1 - held / torch.where(total_weight > 0, total_weight, 1.0), 0.0)
        gap = frames_gap(spread) if dimensions > 1 else torch.ones_like(lost)
    return Scaling(coordinates, spread, gap, lost.clamp(min=0))


def spread_landmarks(pos: Tensor, ptr: Tensor, count: int | None = None) -> Tensor:
    """Return the indices of well-spread landmarks of each graph, [G, K], -1 if it has fewer.

    The first is farthest from the centroid, the next three are farthest from the point, line and plane of the previous
    ones, so that four landmarks span the same space as all points; each further one is farthest from all previous ones.
    Graphs with at most ``count`` points use all of them, and so do all graphs if count is None.

    Shapes:
        pos: [N, 3] Å. ptr: [G + 1].
    """
    number = ptr.diff()  # [G]
    longest = int(number.max()) if len(number) else 0
    slots = torch.arange(max(longest, 1), device=ptr.device)
    nodes = torch.where(slots < number[:, None], ptr[:-1, None] + slots, -1)  # [G, n]
    if count is None or count >= longest:
        return nodes
    with torch.no_grad():
        exact, real = pos.double(), nodes >= 0
        batch = batch_from_ptr(ptr, len(pos))
        total = exact.new_zeros(len(number), 3).index_add(0, batch, exact)
        apart = exact[nodes.clamp(min=0)] - (total / number.clamp(min=1)[:, None])[:, None]  # [G, n, 3]
        points, chosen, rows = apart, [], torch.arange(len(number), device=ptr.device)
        nearest = torch.full_like(apart[..., 0], torch.inf)
        for step in range(count):
            distance = apart.square().sum(-1) if step < 4 else nearest
            farthest = distance.masked_fill(~real, -1.0).argmax(-1)  # [G]
            chosen.append(farthest)
            nearest = torch.minimum(nearest, (points - points[rows, farthest][:, None]).square().sum(-1))
            if step == 0:
                apart = points - points[rows, farthest][:, None]
                continue
            line = apart[rows, farthest]  # [G, 3]
            line = line / line.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
            apart = apart - (apart * line[:, None]).sum(-1, keepdim=True) * line[:, None]
        picked = nodes[rows[:, None], torch.stack(chosen, dim=1)]  # [G, K]
    few = number[:, None] <= count
    return torch.where(few, nodes[:, :count], picked)
