"""Weighted frames: averages over them are continuous in the structure, even where principal moments cross."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.geometry.frames.frames import FrameGroup, Frames, axis_number, has_reflections

__all__ = ["weighted_frames"]

#: Order of the power mean of lengths, and the fraction of its square below which a vector has no weight.
_ORDER, _THRESHOLD = 32, 0.8
#: Spread about an axis, relative to the length of the vector, below which a structure begins to count as linear.
_LINEAR = 0.01


class _Choice(NamedTuple):
    """The vectors selected in each row, and their weights."""

    row: Tensor
    vector: Tensor
    weight: Tensor


def weighted_frames(
    vectors: Tensor, graph: Tensor, centroids: Tensor, group: FrameGroup = "E(3)", axis: str | None = None
) -> Frames:
    """Return frames of pairs of vectors, with weights that vanish before a frame could jump.

    The first axis of a frame is the direction of a vector x_i, the second that of x_j without its component along the
    first, and the third is perpendicular to both (and, for O(3) and E(3), its negative). With m the power mean of the
    lengths and d the distances from the axis of x_i, the weight is a_i b_ij::

        a_i  = (|x_i|² / m² - 0.8)₊³   / sum over i        m = (mean |x_i|³²)^(1/32) <= max |x_i|
        b_ij = (d_ij² / m_i² - 0.8)₊³  / sum over j        m_i = (mean_j d_ij³²)^(1/32) <= max d_ij

    **Continuous:** the longest x_i has ``|x_i| >= m``, so the sums are at least 0.2³, and all weights are continuous
    (even twice differentiable) functions. Where a weight is not zero, ``|x_i|² > 0.8 m²`` and ``d_ij² > 0.8 m_i²``, and
    there the frame is smooth. Averages of continuous functions over the frames are therefore continuous, even where
    moments cross, except for linear structures, m_i = 0. Their second axis is undefined; but the weights a_i stay
    continuous and positions in the frame do not depend on it, so invariants are continuous too; and so is everything
    else, because ``off_axis`` falls smoothly to zero before. **Equivariant:** lengths and distances are invariant, axes
    rotate with the structure, and permuting the vectors permutes the frames.

    Only the outermost vectors have a weight: a molecule has few frames, a large structure a fraction of P².

    Args:
        vectors, graph, centroids, group, axis: as in ``pca_frames``; for SE(2) and E(2) the direction of x_i in the
            plane is the first axis of a frame, and there is no x_j.

    Shapes:
        Those of ``pca_frames``; M depends on the structures.

    Raises:
        InputError: the group is unknown, or has no axis.

    Source:
        Dym, Lawrence & Siegel, ICML 2024, arXiv:2402.16077, who show that finitely many frames of equal weight
        cannot be continuous and weighted ones can. Differs: weights have a threshold, which excludes most pairs; they
        are smooth; and linear structures are continuous.
    """
    mirrors, number = (1, -1) if has_reflections(group) else (1,), axis_number(group, axis)
    exact, num_graphs = vectors.double(), len(centroids)
    rounding = torch.finfo(vectors.dtype).eps
    size = _power_mean(exact.square().sum(-1), graph, num_graphs)  # [G]
    if number is None:
        first = _choose(exact, graph, size, 0 * size)
        _, pole = _direction(first.vector)  # [K, 3]
        owner, row, candidate = first.row, *_pairs(first.row, graph)
        across = exact[candidate] - (exact[candidate] * pole[row]).sum(-1, keepdim=True) * pole[row]
        spread = _power_mean(across.square().sum(-1), row, len(owner))  # [K]
        limit = (16 * rounding) ** 2 * size[owner]
        second = _choose(across, row, spread, limit, pole)
        weights = first.weight[second.row] * second.weight
        ratio = (spread / size[owner].clamp(min=torch.finfo(torch.float64).tiny))[second.row]
        owner, pole = owner[second.row], pole[second.row]
    else:
        unit = torch.eye(3, dtype=exact.dtype, device=exact.device)[number]
        across = exact * (1 - unit)
        spread = _power_mean(across.square().sum(-1), graph, num_graphs)  # [G]
        second = _choose(across, graph, spread, (16 * rounding) ** 2 * size, unit.expand(num_graphs, 3))
        weights, owner, pole = second.weight, second.row, unit.expand(len(second.row), 3)
        ratio = (spread / size.clamp(min=torch.finfo(torch.float64).tiny))[owner]

    _, side = _direction(second.vector)
    third = torch.linalg.cross(pole, side)
    rotations = torch.stack([torch.stack([pole, side, sign * third], dim=-1) for sign in mirrors], dim=1)
    if number is not None:
        rotations = rotations.roll(number, dims=-1)  # the columns of the plane are those after the axis
    order = owner.argsort(stable=True).repeat_interleave(len(mirrors))

    def repeated(value: Tensor) -> Tensor:
        return value[order]

    rotations = rotations[owner.argsort(stable=True)].flatten(0, 1)
    linear = ratio.clamp(min=torch.finfo(torch.float64).tiny).sqrt() / _LINEAR
    linear = torch.where(linear < 1, linear, 1.0)
    on_axis = (size > 0).to(vectors)[owner] if number is None else torch.ones_like(weights)
    return Frames(
        rotations=rotations.to(vectors.dtype),
        graph=repeated(owner),
        weights=repeated(weights / len(mirrors)),  # float64, so that energies keep their digits
        centroids=centroids,
        gap=torch.ones_like(centroids[:, 0]).detach(),
        off_axis=repeated(linear.square() * (3 - 2 * linear)).to(vectors.dtype),
        on_axis=repeated(on_axis).to(vectors.dtype),
        pole=number or 0,
    )


def _power_mean(squares: Tensor, row: Tensor, num_rows: int) -> Tensor:
    """Return the square of the power mean of lengths, [R], from their squares [P]; zero if all are zero."""
    count = squares.new_zeros(num_rows).index_add(0, row, torch.ones_like(squares)).clamp(min=1)
    scale = squares.detach().new_zeros(num_rows).scatter_reduce(0, row, squares.detach(), "amax")
    scale = torch.where(scale > 0, scale, 1.0)  # avoids overflow; the result does not depend on it
    power = (squares / scale[row]) ** (_ORDER // 2)
    mean = power.new_zeros(num_rows).index_add(0, row, power) / count
    zero = mean == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, mean) ** (2 / _ORDER) * scale)


def _choose(vectors: Tensor, row: Tensor, square: Tensor, limit: Tensor, axes: Tensor | None = None) -> _Choice:
    """Return the vectors with a weight in each row; if none exceeds the limit, any vector perpendicular to ``axes``."""
    none = square <= limit  # [R]
    safe = torch.where(none, 1.0, square)
    excess = (vectors.square().sum(-1) / safe[row] - _THRESHOLD).clamp(min=0) ** 3
    kept = ((excess > 0) & ~none[row]).nonzero().squeeze(-1)
    total = excess.new_zeros(len(square)).index_add(0, row[kept], excess[kept])
    empty = none.nonzero().squeeze(-1)
    if axes is None:
        substitute = vectors.new_tensor([1.0, 0.0, 0.0]).expand(len(empty), 3)
    else:
        least = torch.eye(3, dtype=vectors.dtype, device=vectors.device)[axes[empty].abs().argmin(-1)]
        substitute = least - (least * axes[empty]).sum(-1, keepdim=True) * axes[empty]
    return _Choice(
        torch.cat([row[kept], empty]),
        torch.cat([vectors[kept], substitute]),
        torch.cat([excess[kept] / total[row[kept]], torch.ones_like(square[empty])]),
    )


def _direction(vectors: Tensor) -> tuple[Tensor, Tensor]:
    length = vectors.square().sum(-1, keepdim=True).sqrt()
    return length, vectors / length


def _pairs(owner: Tensor, graph: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each row with the vectors of its structure; return the row and the vector of each pair."""
    order = graph.argsort(stable=True)
    begin = torch.searchsorted(graph[order], owner)
    count = torch.searchsorted(graph[order], owner, right=True) - begin
    row = torch.repeat_interleave(torch.arange(len(owner), device=owner.device), count)
    rank = torch.arange(len(row), device=owner.device) - (count.cumsum(0) - count)[row]
    return row, order[begin[row] + rank]
