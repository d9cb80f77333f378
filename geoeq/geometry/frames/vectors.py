"""Frames from given equivariant vectors, complemented by weighted frames where these vectors are degenerate."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.geometry.frames.frames import FrameGroup, Frames, axis_number, checked_threshold, has_reflections
from geoeq.geometry.frames.weighted import weighted_frames

__all__ = ["needed_vectors", "vector_frames"]


class _Basis(NamedTuple):
    """Axes, their weight, and the certainty of the sign of the last axis.

    Shapes:
        rotations: [R, 3, 3], proper. weight: [R], 0 to 1. side: [R], -1 to 1.
    """

    rotations: Tensor
    weight: Tensor
    side: Tensor


def needed_vectors(group: str) -> int:
    """Return the number of vectors that a frame needs: 2, or 1 with a fixed axis; one more with reflections."""
    return (1 if group in ("SE(2)", "E(2)") else 2) + has_reflections(group)


def vector_frames(
    given: Tensor,
    squares: Tensor,
    vectors: Tensor,
    graph: Tensor,
    centroids: Tensor,
    group: FrameGroup = "E(3)",
    axis: str | None = None,
    threshold: float = 0.02,
) -> Frames:
    """Return the frame obtained from three vectors by Gram-Schmidt, as far as they do not vanish or coincide.

    The first axis is the direction of the first vector, the second that of the second vector without its component
    along the first. The third axis is perpendicular to both; with reflections it points to the side of the third vector
    (which is needed, because the cross product of two vectors does not change sign under a reflection). For SE(2) and
    E(2) the construction takes place in the plane, with one vector fewer.

    Equivariant vectors cannot distinguish what the symmetry of a structure exchanges: for water all of them lie on its
    axis, for benzene all vanish, and for any planar structure the third has no side. Therefore, with g the length that
    defines an axis, relative to the lengths of which it is the mean::

        weight of the frame      w = s(g_1² / t²) s(g_2² / t²)      s(x) = x² (3 - 2 x) up to 1
        of both mirror images    (1 ± s'(g_3 / t)) / 2              s'(x) = x (3 - x²) / 2 up to ±1

    and the remaining weight, 1 - w, goes to ``weighted_frames``, which are valid for every structure, and continuous. A
    structure without such degeneracies has a single frame. Weights and frames rotate with the structure, and averages
    over them are continuous wherever the given vectors are.

    Args:
        given: n times three vectors of each structure, equivariant under rotations (and reflections, if the group has
            them).
        squares: mean square lengths with which the given vectors are compared; not smaller than rounding errors.
        vectors, graph, centroids, group, axis: arguments of ``weighted_frames``, as in ``pca_frames``.
        threshold: threshold t of the relative lengths.

    Shapes:
        given: [G, n, 3, 3], rows are vectors. squares: [G, n, 3]. Others as in ``pca_frames``; M depends on the
        structures.

    Raises:
        InputError: the group is unknown, or has no axis, or the threshold is not between 0 and 1.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489, section 3; the orthogonalization: Zhou et al., CVPR 2019,
        arXiv:1812.07035. Differs: reflections need a third vector; degenerate frames are
        replaced by weighted ones (Dym et al., arXiv:2402.16077), with weights that avoid jumps.
    """
    mirrors, number = has_reflections(group), axis_number(group, axis)
    threshold = checked_threshold(threshold)
    num_graphs, draws = given.shape[:2]
    rounding = 64 * torch.finfo(given.dtype).eps
    make = _in_space if number is None else _in_plane
    rows, sizes = given.double().flatten(0, 1), squares.double().flatten(0, 1)
    basis = make(rows, sizes, 0 if number is None else number, threshold, rounding**2)
    rotations, weight = basis.rotations, basis.weight / draws
    owner = torch.arange(num_graphs, device=graph.device).repeat_interleave(draws)
    if mirrors:
        last = torch.ones(3, dtype=rotations.dtype, device=rotations.device)
        last[2 if number is None else (number + 2) % 3] = -1
        rotations = torch.stack([rotations, rotations * last], dim=1).flatten(0, 1)
        halves = torch.stack([1 + basis.side, 1 - basis.side], dim=1) / 2
        weight, owner = (weight.unsqueeze(1) * halves).flatten(), owner.repeat_interleave(2)
    frames = Frames(
        rotations=rotations.to(given.dtype),
        graph=owner,
        weights=weight.to(given.dtype),
        centroids=centroids,
        gap=torch.ones_like(centroids[:, 0]).detach(),
        off_axis=torch.ones_like(weight, dtype=given.dtype),
        on_axis=torch.ones_like(weight, dtype=given.dtype),
        pole=number or 0,
    )
    frames = frames.reweighted(frames.weights)
    left = 1 - basis.weight.unflatten(0, (num_graphs, draws)).mean(1)  # [G]
    degenerate = left > rounding
    if not bool(degenerate.any()):
        return frames
    mask = degenerate[graph]
    extra = weighted_frames(vectors[mask], graph[mask], centroids, group, axis)
    share = torch.where(degenerate, left, 0.0).to(given.dtype)[extra.graph]
    return frames.joined(extra.reweighted(extra.weights * share))


def _in_space(rows: Tensor, squares: Tensor, number: int, threshold: float, limit: float) -> _Basis:
    v1, v2, v3 = rows.unbind(1)  # [R, 3]
    x, y, _ = torch.eye(3, dtype=rows.dtype, device=rows.device)
    first, part1 = _direction(v1, squares[:, 0], x, limit)
    least = torch.where(first[:, :1].abs() > 0.7, y, x)
    across = least - (least * first).sum(-1, keepdim=True) * first
    rest = v2 - (v2 * first).sum(-1, keepdim=True) * first
    second, part2 = _direction(rest, squares[:, 1], across / across.norm(dim=-1, keepdim=True), limit)
    third = torch.linalg.cross(first, second)
    weight = _step(part1 / threshold**2) * _step(part2 / threshold**2)
    side = _side((v3 * third).sum(-1), squares[:, 2], threshold, limit)
    return _Basis(torch.stack([first, second, third], dim=-1), weight, side)


def _in_plane(rows: Tensor, squares: Tensor, number: int, threshold: float, limit: float) -> _Basis:
    unit = torch.eye(3, dtype=rows.dtype, device=rows.device)
    pole, start = unit[number].expand(len(rows), 3), unit[(number + 1) % 3]
    v1, v2, _ = (rows * (1 - unit[number])).unbind(1)
    first, part = _direction(v1, squares[:, 0], start, limit)
    second = torch.linalg.cross(pole, first)
    rotations = torch.stack([pole, first, second], dim=-1).roll(number, dims=-1)
    side = _side((v2 * second).sum(-1), squares[:, 1], threshold, limit)
    return _Basis(rotations, _step(part / threshold**2), side)


def _direction(vectors: Tensor, squares: Tensor, substitute: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Return the direction and the relative squared length; ``substitute`` and 0 if the vector is only rounding."""
    length = vectors.square().sum(-1)
    none = length <= limit * squares
    safe = torch.where(none.unsqueeze(-1), substitute, vectors)
    part = torch.where(none, 0.0, length / torch.where(none, 1.0, squares))
    return safe / safe.square().sum(-1, keepdim=True).sqrt(), part


def _side(height: Tensor, squares: Tensor, threshold: float, limit: float) -> Tensor:
    none = height.square() <= limit * squares
    x = (height / torch.where(none, 1.0, squares).sqrt() / threshold).clamp(-1, 1)
    return torch.where(none, 0.0, x * (3 - x.square()) / 2)


def _step(x: Tensor) -> Tensor:
    x = x.clamp(max=1)
    return x.square() * (3 - 2 * x)
