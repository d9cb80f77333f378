"""The Canonicalizer contract, which maps structures to frames, and canonicalization by principal axes."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Self, get_args

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import check_name
from geoeq.geometry.frames import (
    FrameGroup,
    Frames,
    Images,
    axis_number,
    checked_threshold,
    has_reflections,
    inputs_that_turn,
    pca_frames,
    signed_frames,
)
from geoeq.geometry.rotations import geodesic_distance
from geoeq.layers.layer import WithExample
from geoeq.models.config import Configurable
from geoeq.models.model import Model

__all__ = ["Canonicalizer", "PCACanonicalizer"]


class Canonicalizer(Configurable, nn.Module, WithExample):
    """Base class of canonicalizers, which map structures to as few frames as possible that rotate with them.

    Attributes:
        group: group under which the frames are equivariant.
        axis: axis of SE(2) and E(2), and of point groups about an axis; None for other groups.
        random: whether frames are equivariant only in distribution.
    """

    group: str
    axis: str | None = None
    random: bool = False

    @abstractmethod
    def forward(self, data: Data) -> Frames:
        """Return the frames of a batch."""

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Losses to train the frames with; see ``Model.auxiliary_losses``."""
        angle = {} if has_reflections(self.group) else {"prior_angle": self._prior_angle}
        return {"prior": self._prior, **angle}

    def _prior(self, data: Data) -> Tensor:
        frames = self(data)
        identity = torch.eye(3, dtype=frames.rotations.dtype, device=frames.rotations.device)
        return _mean(frames, (frames.rotations - identity).square().sum((-2, -1)))

    def _prior_angle(self, data: Data) -> Tensor:
        frames = self(data)
        identity = torch.eye(3, dtype=frames.rotations.dtype, device=frames.rotations.device)
        return _mean(frames, geodesic_distance(frames.rotations, identity.expand_as(frames.rotations)).square())


class PCACanonicalizer(Canonicalizer):
    """Frame of the principal axes, longest first, each pointing to where the third moment is positive.

    If an axis has no skewness, both signs have weight one half, and near that case both have a weight, so that nothing
    jumps: a water molecule has two frames in SE(3), and two more in E(3) for its plane. If two principal moments are
    equal, as in methane or benzene, axes are not unique, and outputs are neither continuous nor symmetric;
    ``Frames.gap`` measures how close a structure is to that.

    Args:
        group: "E(3)", "O(3)", "E(2)" and "SE(3)", "SO(3)", "SE(2)", as for ``FrameAveraging``.
        axis: "x", "y" or "z" (the default) for SE(2) and E(2).
        threshold: skewness below which both signs have a weight; see ``geoeq.geometry.frames.signed_frames``.
        images: see ``FrameAveraging``.

    Raises:
        InputError: an option is unknown or out of range.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489. Differs: see ``geoeq.geometry.frames.signed_frames``.
    """

    def __init__(
        self,
        group: FrameGroup = "E(3)",
        axis: str | None = None,
        threshold: float = 0.02,
        images: Images = "any",
    ) -> None:
        super().__init__()
        check_name("choice of images", images, get_args(Images))
        self.images: Images = images
        self.group, self.axis = checked_group(group, axis)
        self.threshold = checked_threshold(threshold)

    @classmethod
    def example(cls) -> Self:
        return cls()

    def forward(self, data: Data) -> Frames:
        group: FrameGroup = self.group  # type: ignore[assignment]
        vectors, graph, centroids = inputs_that_turn(data, group, self.images)
        frames = pca_frames(vectors, graph, centroids, group, self.axis)
        return signed_frames(frames, vectors, graph, group, self.axis, self.threshold)


def checked_group(group: str, axis: str | None) -> tuple[str, str | None]:
    """Return a group of all rotations, in space or about an axis, and the axis, after checking both.

    Raises:
        InputError: the group or axis is unknown.
    """
    axis_number(group, axis)
    check_name("group", group, get_args(FrameGroup))
    return group, axis or ("z" if group in ("SE(2)", "E(2)") else None)


def without_foreign_edges(data: Data, network: Model) -> Data:
    """Return structures without edges that were built for the cutoff of another network, if this one has no cutoff."""
    if network.cutoff is not None or getattr(data, "edge_cutoff", None) is None:
        return data
    bare = copy.copy(data)
    for name in ("edge_index", "edge_shifts", "edge_attr", "edge_cutoff"):
        if name in bare:
            del bare[name]
    return bare


def _mean(frames: Frames, values: Tensor) -> Tensor:
    """Return the mean over structures of a value of each frame, by the weights of the frames."""
    return (frames.weights * values).sum() / max(frames.num_graphs, 1)
