"""Frames of a batch of structures, and the symmetry groups that they serve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from geoeq.errors import InputError, check_name

__all__ = [
    "FrameGroup",
    "Frames",
    "axis_number",
    "checked_threshold",
    "fixed_frames",
    "frames_gap",
    "has_reflections",
    "has_translations",
]

#: Rotations of space or, with a 2, about an axis; E and O include reflections; SE and E include translations.
FrameGroup = Literal["SO(3)", "O(3)", "SE(3)", "E(3)", "SE(2)", "E(2)"]

_AXES = {"x": 0, "y": 1, "z": 2}


@dataclass(frozen=True)
class Frames:
    """M frames of G structures, grouped by structure; coordinates in a frame are ``(pos - centroid) @ rotation``.

    Attributes:
        rotations: [M, 3, 3], orthogonal; the columns are the axes of the frame.
        graph: [M] int64, sorted: the structure of each frame.
        weights: [M], with sum 1 over the frames of a structure.
        centroids: [G, 3] Å, zero for groups without translations.
        gap: [G], between 0 and 1: distance from a degeneracy. At 0 the frames are not unique, and results computed
            with them are not symmetric. Linear structures and single points count as unique, because positions have the
            same coordinates in all of their frames.
        off_axis: [M], 0 if all vectors lie on ``pole``, so that the rotation about it is undefined, else 1 (or in
            between): factor of everything that is not symmetric about the pole, when rotated back.
        on_axis: [M], 0 if all vectors are zero, else 1: factor of everything except scalars.
        pole: column of the axis to which ``off_axis`` refers: the fixed axis, or the first axis of a frame.
    """

    rotations: Tensor
    graph: Tensor
    weights: Tensor
    centroids: Tensor
    gap: Tensor
    off_axis: Tensor
    on_axis: Tensor
    pole: int = 0

    @property
    def num_graphs(self) -> int:
        """Number G of structures."""
        return self.centroids.shape[0]

    def pick(self, index: Tensor) -> Frames:
        """Return only the frames with these indices [K] int64, in ascending order, each with weight 1."""
        weights = torch.ones_like(self.weights[index])
        return replace(self, weights=weights, **self._rows(index))

    def reweighted(self, weights: Tensor) -> Frames:
        """Return the same frames with other weights [M]; frames with weight zero are dropped."""
        kept = (weights.detach() != 0).nonzero().squeeze(-1)
        return replace(self, weights=weights[kept], **self._rows(kept))

    def joined(self, other: Frames) -> Frames:
        """Return these and other frames of the same structures, with their weights unchanged."""
        order = torch.cat([self.graph, other.graph]).argsort(stable=True)
        first, second = ({"weights": frames.weights, **frames._rows(slice(None))} for frames in (self, other))
        parts: dict[str, Any] = {name: torch.cat([first[name], second[name]])[order] for name in first}
        return replace(self, gap=torch.minimum(self.gap, other.gap), **parts)

    def _rows(self, index: Tensor | slice) -> dict[str, Any]:
        return {name: getattr(self, name)[index] for name in ("rotations", "graph", "off_axis", "on_axis")}

    def draw(self, generator: torch.Generator | None = None) -> Frames:
        """Draw one frame of each structure at random, with its weight as probability."""
        ends = self.weights.detach().double().cumsum(0)  # [M]; structure g ends at g + 1
        quantile = torch.rand(self.num_graphs, generator=generator, dtype=torch.float64).to(ends.device)
        graphs = torch.arange(self.num_graphs, device=ends.device)
        first = torch.searchsorted(self.graph, graphs)
        last = torch.searchsorted(self.graph, graphs, right=True) - 1
        return self.pick(torch.searchsorted(ends, graphs + quantile).clamp(min=first, max=last))


def fixed_frames(rotations: Tensor, centroids: Tensor) -> Frames:
    """Return frames that do not rotate with structures, such as the elements of a group, all with equal weight.

    Shapes:
        rotations: [F, 3, 3] for all structures, or [G, F, 3, 3]. centroids: [G, 3]. Returns M = G F frames.
    """
    num_graphs, count = len(centroids), rotations.shape[-3]
    repeated = rotations.to(centroids).expand(num_graphs, count, 3, 3).flatten(0, 1)
    ones = torch.ones_like(repeated[:, 0, 0])
    return Frames(
        rotations=repeated,
        graph=torch.arange(num_graphs, device=centroids.device).repeat_interleave(count),
        weights=ones / count,
        centroids=centroids,
        gap=torch.ones_like(centroids[:, 0]).detach(),
        off_axis=ones,
        on_axis=ones,
    )


def has_reflections(group: str) -> bool:
    """Return whether the group contains reflections, so that mirror images are equivalent.

    Raises:
        InputError: there is no such group.
    """
    check_name("group", group, get_args(FrameGroup))
    return group in ("O(3)", "E(3)", "E(2)")


def has_translations(group: str) -> bool:
    """Return whether the group contains translations (for SE(2) and E(2) also along the axis)."""
    return group not in ("SO(3)", "O(3)")


def checked_threshold(threshold: float) -> float:
    """Return ``threshold``, the value below which a frame counts as ambiguous, after checking it.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold is {threshold}; it must be between 0 and 1.")
    return threshold


def axis_number(group: str, axis: str | None) -> int | None:
    """Return the coordinate that rotations leave unchanged: 0, 1 or 2 for SE(2) and E(2), None for other groups.

    Raises:
        InputError: the axis is not x, y or z, or the group has none.
    """
    if group not in ("SE(2)", "E(2)"):
        if axis is not None:
            raise InputError(f"axis is '{axis}', but {group} has rotations about all axes; SE(2) and E(2) have one.")
        return None
    if axis is None:
        return 2
    check_name("axis", axis, _AXES)
    return _AXES[axis]


def frames_gap(values: Tensor) -> Tensor:
    """Return the smallest gap between eigenvalues, relative to the largest eigenvalue.

    It is 1 if at most one of them is non-zero (up to rounding), as for a linear structure or a point.

    Shapes:
        values: [G, 2] or [G, 3], descending, non-negative. Returns [G].
    """
    largest = values[:, 0]
    gaps = -values.diff(dim=-1).amax(-1) / torch.where(largest > 0, largest, 1.0)
    return torch.where(values[:, 1] <= _negligible(values) * largest, 1.0, gaps)


def _negligible(values: Tensor) -> float:
    return 64 * torch.finfo(values.dtype).eps
