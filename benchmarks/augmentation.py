"""Augmentation as a wrapper, so that ``symmetry.py`` can compare it: a recipe names ``augmentation.RandomTurns``."""

from __future__ import annotations

import torch
from torch import nn
from torch_geometric.data import Data

from geoeq.geometry.frames import Frames, inputs_that_turn
from geoeq.geometry.rotations import random_orthogonals
from geoeq.models import FrameAveraging

__all__ = ["RandomTurns"]


class RandomTurns(FrameAveraging):
    """In training a network sees each structure turned, and mirrored, at random; otherwise as it is given.

    Outputs are turned back, so that a loss of their lengths is that of turned structures with turned targets. Nothing
    is averaged, and nothing promised: the group is "T(3)".

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.group = "T(3)"  # type: ignore[assignment]

    def frames_of(self, data: Data) -> Frames:
        """One frame of each structure, which has nothing to do with it."""
        _, _, centroids = inputs_that_turn(data, "E(3)")
        count = len(centroids)
        turns = random_orthogonals(count, dtype=centroids.dtype).to(centroids.device)
        if not self.training:
            turns = torch.eye(3).to(centroids).expand(count, 3, 3)
        ones = centroids.new_ones(count)
        graphs = torch.arange(count, device=centroids.device)
        return Frames(turns, graphs, ones, centroids, gap=ones, off_axis=ones, on_axis=ones)
