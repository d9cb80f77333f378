"""The same frames for every structure."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.geometry.frames.frames import Frames

__all__ = ["fixed_frames"]


def fixed_frames(rotations: Tensor, centroids: Tensor) -> Frames:
    """Frames that do not turn with structures, such as the elements of a group, all with the same weight.

    Shapes:
        rotations: [F, 3, 3] for all structures, or [G, F, 3, 3]. centroids: [G, 3]. Returns M = G F frames.
    """
    num_graphs, count = len(centroids), rotations.shape[-3]
    every = rotations.to(centroids).expand(num_graphs, count, 3, 3).flatten(0, 1)
    ones = torch.ones_like(every[:, 0, 0])
    return Frames(
        rotations=every,
        graph=torch.arange(num_graphs, device=centroids.device).repeat_interleave(count),
        weights=ones / count,
        centroids=centroids,
        gap=torch.ones_like(centroids[:, 0]).detach(),
        off_axis=ones,
        on_axis=ones,
    )
