"""Rigid alignment of points (the Procrustes problem), for many graphs at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.errors import TensorError
from geoeq.geometry.rotations.orthogonalize import nearest_orthogonal, nearest_rotation

__all__ = ["Alignment", "align"]


class Alignment(NamedTuple):
    """The rigid motion that aligns points with a target, and the result.

    Shapes:
        rotation: [G, 3, 3]. translation: [G, 3] Å: ``target ≈ points @ rotation[batch].mT + translation[batch]``.
        aligned: [N, 3] Å, the aligned points. rmsd: [G] Å.
    """

    rotation: Tensor
    translation: Tensor
    aligned: Tensor
    rmsd: Tensor


def align(
    points: Tensor,
    target: Tensor,
    batch: Tensor | None = None,
    *,
    num_graphs: int | None = None,
    weights: Tensor | None = None,
    reflections: bool = False,
) -> Alignment:
    """Align the points of each graph with the target, minimising the weighted sum of squared distances.

    Results are differentiable. For collinear points the rotation about the line is undefined and derivatives are large.

    Args:
        points, target: positions of the same atoms, in the same order.
        batch: graph of each atom; None for a single graph.
        num_graphs: number G of graphs; required if the last graphs are empty.
        weights: non-negative weights of the atoms, such as masses; None for equal weights.
        reflections: allow improper rotations.

    Shapes:
        points, target: [N, 3] Å. batch: [N]. weights: [N].

    Raises:
        TensorError: points and target differ in shape.

    Source:
        Kabsch, Acta Cryst. A32, 922 (1976). Differs: uses the polar factor of the covariance instead of its square.
    """
    if points.shape != target.shape or points.dim() != 2:
        raise TensorError(f"points are {list(points.shape)} and target {list(target.shape)}; both must be [N, 3].")
    if batch is None:
        batch, num_graphs = torch.zeros(len(points), dtype=torch.int64, device=points.device), num_graphs or 1
    if num_graphs is None:
        num_graphs = int(batch.max()) + 1 if len(batch) else 0
    weights = points.new_ones(len(points)) if weights is None else weights
    count: int = num_graphs

    def total(values: Tensor) -> Tensor:
        return values.new_zeros(count, *values.shape[1:]).index_add(0, batch, values)

    mass = total(weights).clamp(min=torch.finfo(points.dtype).tiny).unsqueeze(-1)  # [G, 1]
    share = (weights / mass.squeeze(-1)[batch]).unsqueeze(-1)  # [N, 1]
    center, center_target = total(share * points), total(share * target)
    inner, outer = points - center[batch], target - center_target[batch]
    covariance = total(outer.unsqueeze(2) * (share * inner).unsqueeze(1))  # [G, 3, 3]
    rotation = nearest_orthogonal(covariance) if reflections else nearest_rotation(covariance)
    translation = center_target - (rotation @ center.unsqueeze(-1)).squeeze(-1)
    aligned = (rotation[batch] @ inner.unsqueeze(-1)).squeeze(-1) + center_target[batch]
    square = total(share * (aligned - target).square()).sum(-1)
    zero = square == 0
    rmsd = torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())
    return Alignment(rotation, translation, aligned, rmsd)
