"""Frames of vectors that somebody else has found, with weighted frames where these vectors leave one open."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.geometry.frames.frames import FrameGroup, Frames, axis_number, checked_threshold, has_reflections
from geoeq.geometry.frames.weighted import weighted_frames

__all__ = ["needed_vectors", "vector_frames"]


class _Basis(NamedTuple):
    """Axes, their weight, and how surely the last axis has its sign.

    Shapes:
        rotations: [R, 3, 3], proper. weight: [R], 0 to 1. side: [R], -1 to 1.
    """

    rotations: Tensor
    weight: Tensor
    side: Tensor


def needed_vectors(group: str) -> int:
    """How many of the three vectors a frame of the group takes: 2, of an axis 1, and one more with reflections."""
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
    """The frame that Gram and Schmidt make of three vectors, as far as they do not vanish or coincide.

    The first axis is the direction of the first vector, the second that of the second less its part along the first.
    The third is across both; with reflections it is on the side where the third vector points (a vector is needed:
    what is across two vectors does not turn with a mirror). For SE(2) and E(2) all this is in the plane, one
    vector fewer.

    Vectors that turn with a structure cannot tell apart what its symmetry exchanges: of a water molecule all of them
    lie on its axis, of benzene all vanish, of anything planar the third has no side. So with g the length of what
    makes an axis, over the size of what it is the mean of::

        weight of the frame      w = s(g_1² / t²) s(g_2² / t²)      s(x) = x² (3 - 2 x) up to 1
        of both mirror images    (1 ± s'(g_3 / t)) / 2              s'(x) = x (3 - x²) / 2 up to ±1

    and what is left, 1 - w, goes to ``weighted_frames``, which are right for every structure, and continuous. A
    structure far from all that has one frame alone. Weights and frames turn with the structure, and averages
    over them are continuous wherever the vectors given are.

    Args:
        given: n times three vectors of each structure, which turn with it (and with mirror images, where the group
            has these).
        squares: mean square lengths that the vectors given are compared with; not smaller than rounding.
        vectors, graph, centroids, group, axis: as for ``pca_frames``, for ``weighted_frames``.
        threshold: t.

    Shapes:
        given: [G, n, 3, 3], rows are vectors. squares: [G, n, 3]. Others as for ``pca_frames``; M depends on the
        structures.

    Raises:
        InputError: the group is unknown, or has no axis, or the threshold is not between 0 and 1.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489, section 3; the orthogonalization: Zhou et al., CVPR 2019,
        arXiv:1812.07035. Differs: reflections take a third vector; frames that are not there are
        replaced by weighted ones (Dym et al., arXiv:2402.16077), with weights that leave nothing to jump.
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
    found = Frames(
        rotations=rotations.to(given.dtype),
        graph=owner,
        weights=weight.to(given.dtype),
        centroids=centroids,
        gap=torch.ones_like(centroids[:, 0]).detach(),
        off_axis=torch.ones_like(weight, dtype=given.dtype),
        on_axis=torch.ones_like(weight, dtype=given.dtype),
        pole=number or 0,
    )
    found = found.weighed(found.weights)
    left = 1 - basis.weight.unflatten(0, (num_graphs, draws)).mean(1)  # [G]
    open_ = left > rounding
    if not bool(open_.any()):
        return found
    mine = open_[graph]
    spare = weighted_frames(vectors[mine], graph[mine], centroids, group, axis)
    share = torch.where(open_, left, 0.0).to(given.dtype)[spare.graph]
    return found.joined(spare.weighed(spare.weights * share))


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


def _direction(vectors: Tensor, squares: Tensor, instead: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """The direction, and the square of the length over the size; ``instead``, and 0, where it is but rounding."""
    length = vectors.square().sum(-1)
    none = length <= limit * squares
    safe = torch.where(none.unsqueeze(-1), instead, vectors)
    part = torch.where(none, 0.0, length / torch.where(none, 1.0, squares))
    return safe / safe.square().sum(-1, keepdim=True).sqrt(), part


def _side(height: Tensor, squares: Tensor, threshold: float, limit: float) -> Tensor:
    none = height.square() <= limit * squares
    x = (height / torch.where(none, 1.0, squares).sqrt() / threshold).clamp(-1, 1)
    return torch.where(none, 0.0, x * (3 - x.square()) / 2)


def _step(x: Tensor) -> Tensor:
    x = x.clamp(max=1)
    return x.square() * (3 - 2 * x)
