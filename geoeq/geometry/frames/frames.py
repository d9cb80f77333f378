"""Frames of a batch of structures, the groups they are for, and the vectors they are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from geoeq.errors import InputError, unknown_name

__all__ = [
    "FrameGroup",
    "Frames",
    "axis_number",
    "checked_threshold",
    "frames_gap",
    "has_reflections",
    "has_translations",
]

#: Rotations of space or, with a 2, about an axis; E and O with reflections; E with translations.
FrameGroup = Literal["SO(3)", "O(3)", "SE(3)", "E(3)", "SE(2)", "E(2)"]

_AXES = {"x": 0, "y": 1, "z": 2}


@dataclass(frozen=True)
class Frames:
    """M frames of G structures, those of a structure in a row; ``(pos - centroid) @ rotation`` is seen from a frame.

    Attributes:
        rotations: [M, 3, 3], orthogonal; the columns are the axes of the frame.
        graph: [M] int64, sorted: whose frame it is.
        weights: [M], with sum 1 over the frames of a structure.
        centroids: [G, 3] Å, zero for groups without translations.
        gap: [G], between 0 and 1: how far from where other frames would do as well. At 0 they are not unique, and
            what is made with them not symmetric. Structures on a line or in one point count as unique, as
            positions look the same from all of their frames.
        off_axis: [M], 0 where all vectors lie on ``pole`` and the turn about it is open, else 1 (or between):
            what is not symmetric about the pole counts by this factor when it is turned back.
        on_axis: [M], 0 where there are no vectors but zero, else 1: factor of all but scalars.
        pole: column of the axis that ``off_axis`` is about: the fixed axis, or the first of a frame.
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

    def pick(self, chosen: Tensor) -> Frames:
        """Only the frames [K] int64, in ascending order, each with the weight 1."""
        weights = torch.ones_like(self.weights[chosen])
        return replace(self, weights=weights, **self._rows(chosen))

    def weighed(self, weights: Tensor) -> Frames:
        """The same frames with other weights [M]; those whose weight is zero are left out."""
        kept = (weights.detach() != 0).nonzero().squeeze(-1)
        return replace(self, weights=weights[kept], **self._rows(kept))

    def joined(self, other: Frames) -> Frames:
        """These and other frames of the same structures, with the weights that they have."""
        order = torch.cat([self.graph, other.graph]).argsort(stable=True)
        mine, theirs = ({"weights": frames.weights, **frames._rows(slice(None))} for frames in (self, other))
        parts: dict[str, Any] = {name: torch.cat([mine[name], theirs[name]])[order] for name in mine}
        return replace(self, gap=torch.minimum(self.gap, other.gap), **parts)

    def _rows(self, chosen: Tensor | slice) -> dict[str, Any]:
        return {name: getattr(self, name)[chosen] for name in ("rotations", "graph", "off_axis", "on_axis")}

    def draw(self, generator: torch.Generator | None = None) -> Frames:
        """One frame of each structure at random, with the probability that is its weight."""
        ends = self.weights.detach().double().cumsum(0)  # [M]; structure g ends at g + 1
        place = torch.rand(self.num_graphs, generator=generator, dtype=torch.float64).to(ends.device)
        graphs = torch.arange(self.num_graphs, device=ends.device)
        first = torch.searchsorted(self.graph, graphs)
        last = torch.searchsorted(self.graph, graphs, right=True) - 1
        return self.pick(torch.searchsorted(ends, graphs + place).clamp(min=first, max=last))


def has_reflections(group: str) -> bool:
    """Whether mirror images count as the same.

    Raises:
        InputError: there is no such group.
    """
    if group not in get_args(FrameGroup):
        raise InputError(unknown_name("group", group, get_args(FrameGroup)))
    return group in ("O(3)", "E(3)", "E(2)")


def has_translations(group: str) -> bool:
    """Whether structures that are elsewhere count as the same (for SE(2) and E(2) also along the axis)."""
    return group not in ("SO(3)", "O(3)")


def checked_threshold(threshold: float) -> float:
    """``threshold`` itself, below which a frame is not sure.

    Raises:
        InputError: it is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold is {threshold}; it must be between 0 and 1.")
    return threshold


def axis_number(group: str, axis: str | None) -> int | None:
    """The coordinate that rotations leave alone: 0, 1 or 2 for SE(2) and E(2), and None for the others.

    Raises:
        InputError: the axis is not x, y or z, or the group has none.
    """
    if group not in ("SE(2)", "E(2)"):
        if axis is not None:
            raise InputError(f"axis is '{axis}', but {group} has rotations about all axes; SE(2) and E(2) have one.")
        return None
    if axis is None:
        return 2
    if axis not in _AXES:
        raise InputError(unknown_name("axis", axis, _AXES))
    return _AXES[axis]


def frames_gap(values: Tensor) -> Tensor:
    """The smallest gap between eigenvalues, in parts of the largest.

    1 where at most one of them is not zero (to rounding): a structure on a line, or a point.

    Shapes:
        values: [G, 2] or [G, 3], descending, not negative. Returns [G].
    """
    largest = values[:, 0]
    gaps = -values.diff(dim=-1).amax(-1) / torch.where(largest > 0, largest, 1.0)
    return torch.where(values[:, 1] <= _negligible(values) * largest, 1.0, gaps)


def _negligible(values: Tensor) -> float:
    return 64 * torch.finfo(values.dtype).eps
