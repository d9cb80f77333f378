"""Signs of principal axes, from the skewness of a structure along them."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.geometry.frames.frames import FrameGroup, Frames, axis_number, checked_threshold, has_reflections

__all__ = ["signed_frames"]

#: Lower bound of the sum of cubes along an axis, relative to the sum over all axes.
_THIN = 1e-6


def signed_frames(
    frames: Frames,
    vectors: Tensor,
    graph: Tensor,
    group: FrameGroup = "E(3)",
    axis: str | None = None,
    threshold: float = 0.02,
) -> Frames:
    """Return the frames whose axes point in the direction of positive third moments, out of the frames of all signs.

    With p the projections of all vectors on an axis, ``k = Σ p³ / Σ |p|³`` is the skewness, odd and between -1 and 1. A
    frame has the weight ``Π (1 + s(k / t)) / 2``, with the odd function s, ``x (3 - x²) / 2`` up to ±1: a single frame
    remains if all skewnesses exceed the threshold t. If the skewness of an axis vanishes, as for structures with a
    mirror plane across the axis, both signs have equal weight; in between both have a weight, so that nothing jumps.
    The product runs over the axes with free signs: all three with reflections, else the first two; in a plane two and
    one.

    Args:
        frames: frames from ``pca_frames``.
        vectors, graph, group, axis: arguments from which ``pca_frames`` computed them.
        threshold: threshold t of the skewness.

    Shapes:
        Those of ``pca_frames``; the number of frames depends on the structures.

    Raises:
        InputError: the threshold is not between 0 and 1.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489, section 4.2, take principal axes without their signs. Differs: signs.
    """
    threshold = checked_threshold(threshold)
    number, mirrors = axis_number(group, axis), has_reflections(group)
    columns = [0, 1, 2] if number is None else [(number + 1) % 3, (number + 2) % 3]
    free = columns if mirrors else columns[:-1]
    first = torch.searchsorted(frames.graph, torch.arange(frames.num_graphs, device=graph.device))
    one = frames.rotations[first].double()  # [G, 3, 3]; the others differ by signs
    exact = vectors.double()
    along = (exact.unsqueeze(1) @ one[graph]).squeeze(1)  # [P, 3]
    cubes = torch.stack([along**3, along.abs() ** 3], dim=1)  # [P, 2, 3]
    odd, size = cubes.new_zeros(frames.num_graphs, 2, 3).index_add(0, graph, cubes).unbind(1)
    whole = size.sum(-1, keepdim=True)
    size = size + _THIN * torch.where(whole > 0, whole, 1.0)
    x = (odd / size / threshold).clamp(-1, 1)
    certainty = x * (3 - x.square()) / 2  # [G, 3]
    signs = (frames.rotations.detach().double() * one.detach()[frames.graph]).sum(1).round()  # [M, 3]
    parts = (1 + signs * certainty[frames.graph]) / 2
    return frames.reweighted(parts[:, free].prod(-1).to(frames.weights.dtype))
