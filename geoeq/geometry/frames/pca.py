"""Frames of principal axes with all choices of signs."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.geometry.frames.eigenvectors import eigenvectors
from geoeq.geometry.frames.frames import FrameGroup, Frames, axis_number, frames_gap, has_reflections

__all__ = ["pca_frames"]


def pca_frames(
    vectors: Tensor,
    graph: Tensor,
    centroids: Tensor,
    group: FrameGroup = "E(3)",
    axis: str | None = None,
) -> Frames:
    """Return the frames of the principal axes of each structure, largest moment first, with all choices of signs.

    There are 8 frames for O(3) and E(3), and 4 for SO(3) and SE(3), whose third axis is the cross product of the first
    two. For SE(2) and E(2) the axes lie in the plane perpendicular to ``axis``, which keeps its coordinate: 2 frames, 4
    with reflections. The frames rotate with the structure unless two principal moments are equal (``Frames.gap``).

    Args:
        vectors: vectors that rotate with each structure: positions relative to the centroid, and others.
        graph: structure of each vector; structures without vectors have frames too.
        centroids: centroids, stored with the frames.
        group: symmetry group that the frames serve.
        axis: "x", "y" or "z" (the default), for SE(2) and E(2).

    Shapes:
        vectors: [P, 3]. graph: [P]. centroids: [G, 3]. Returns F frames per structure, M = G F.

    Raises:
        InputError: the group is unknown, or has no axis.

    Source:
        Puny et al., ICLR 2022, arXiv:2110.03336, section 3.1; the frames in a plane: Duval et al., ICML 2023,
        arXiv:2305.05577, section 4. Differs: computed in float64, derivatives stay finite at equal moments, and
        linear structures have ``off_axis`` 0.
    """
    number, signs = axis_number(group, axis), _signs(group)
    num_graphs, exact = len(centroids), vectors.double()
    plane = [0, 1, 2] if number is None else [(number + 1) % 3, (number + 2) % 3]
    inside = exact[:, plane]  # [P, n]
    count = exact.new_zeros(num_graphs).index_add(0, graph, torch.ones_like(exact[:, 0])).clamp(min=1)
    products = inside.unsqueeze(2) * inside.unsqueeze(1)
    covariance = products.new_zeros(num_graphs, len(plane), len(plane)).index_add(0, graph, products)
    covariance = covariance / count[:, None, None]
    rounding = torch.finfo(vectors.dtype).eps
    values, axes = eigenvectors(covariance, rounding**0.375)  # [G, n], [G, n, n]
    rotation = _completed(axes, number)  # [G, 3, 3], proper
    rotations = rotation.unsqueeze(1) * _columns(signs, number).to(rotation)  # [G, F, 3, 3]

    with torch.no_grad():
        spread = values.clamp(min=0).to(vectors.dtype)
        # With a fixed axis, all vectors may lie on it; in space, all may lie on the first principal axis.
        across = spread[:, 0] if number is not None else spread[:, 1]
        size = exact.square().sum(-1)
        largest = exact.new_zeros(num_graphs).index_add(0, graph, size).to(vectors.dtype) / count.to(vectors.dtype)
        off_axis = (across > 64 * rounding * largest).to(vectors.dtype)
        on_axis = (largest > 0).to(vectors.dtype)

    def repeated(value: Tensor) -> Tensor:
        return value.repeat_interleave(len(signs), 0)

    return Frames(
        rotations=rotations.flatten(0, 1).to(vectors.dtype),
        graph=repeated(torch.arange(num_graphs, device=graph.device)),
        weights=vectors.new_full((num_graphs * len(signs),), 1 / len(signs)),
        centroids=centroids,
        gap=frames_gap(spread),
        off_axis=repeated(off_axis),
        on_axis=repeated(on_axis) if number is None else torch.ones_like(repeated(on_axis)),
        pole=number or 0,
    )


def _signs(group: FrameGroup) -> list[tuple[int, ...]]:
    pairs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    if group in ("SE(2)", "E(2)"):
        return [pair for pair in pairs if has_reflections(group) or pair[0] == pair[1]]
    mirrors = (1, -1) if has_reflections(group) else (1,)
    return [(a, b, a * b * mirror) for a, b in pairs for mirror in mirrors]


def _columns(signs: list[tuple[int, ...]], axis: int | None) -> Tensor:
    """Return the signs of all columns, [F, 1, 3]."""
    table = torch.ones(len(signs), 1, 3, dtype=torch.float64)
    columns = [0, 1, 2] if axis is None else [(axis + 1) % 3, (axis + 2) % 3]
    table[:, 0, columns] = torch.tensor(signs, dtype=torch.float64)
    return table


def _completed(axes: Tensor, axis: int | None) -> Tensor:
    """Return a proper rotation from the first axes; the last one is perpendicular to them."""
    first = axes[..., 0]
    if axis is None:
        second = axes[..., 1]
        return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)
    zero = torch.zeros_like(first[:, 0])
    one = torch.ones_like(zero)
    u, v = first.unbind(-1)
    columns = {
        axis: torch.stack([one, zero, zero], dim=-1),
        (axis + 1) % 3: torch.stack([zero, u, v], dim=-1),
        (axis + 2) % 3: torch.stack([zero, -v, u], dim=-1),
    }  # each in the order axis, axis + 1, axis + 2
    order = [(coordinate - axis) % 3 for coordinate in range(3)]
    return torch.stack([columns[column][:, order] for column in range(3)], dim=-1)
