"""Frame averaging: make any network equivariant by averaging its outputs over frames of its input."""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from torch import nn
from torch_geometric.data import Data

from geoeq.errors import check_name
from geoeq.geometry.frames import (
    FrameGroup,
    Frames,
    Images,
    axis_number,
    inputs_that_turn,
    pca_frames,
    weighted_frames,
)
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.networks.egnn import EGNN
from geoeq.models.symmetrized.framed import FramedModel

__all__ = ["FrameAveraging", "FrameKind"]

FrameKind = Literal["full", "stochastic", "weighted"]


class FrameAveraging(FramedModel):
    """Wrapper that gives any network the symmetry of a group.

    The network sees each structure from its frames R (with rotated positions, velocities and cells, and the centroid at
    the origin), all frames of all structures in one pass. Its outputs are rotated back, as ``geoeq.fields`` declares
    them to transform, and averaged::

        f(x) = Σ_R w_R D(R) φ(Rᵀ (x - c))  (+ c, for outputs that translate)

    The network needs no symmetry. Its expressive power is not restricted, and an equivariant network is unchanged.

    Derivatives by positions go through the frames, and are those of f. With "full" they contain terms inversely
    proportional to the gap of two principal moments, near which f itself jumps; they stay finite
    (``geoeq.geometry.frames.eigenvectors``). With "weighted" they are finite and continuous everywhere except for
    linear structures.

    Frames are computed from the positions, the velocities and the cell vectors: with only some of them, the network
    could read the orientation of a symmetric structure from the others. ``x`` and ``edge_attr`` are assumed invariant.

    Args:
        model: the network, from Data to a dict with names of ``geoeq.fields``: a Model or any other module. In a
            checkpoint it must be a Model (or another Configurable).
        group: "E(3)", "O(3)" (about the origin, no translations), "E(2)" (about ``axis``, with translations in all
            directions), and "SE(3)", "SO(3)" and "SE(2)" without reflections.
        frames: "full" takes all 2 to 8 choices of signs of the principal axes; "stochastic" one of them at random,
            which is equivariant in expectation; "weighted" frames of pairs of vectors, with weights that make the
            result continuous and also correct for symmetric molecules, whose principal axes are not unique.
        axis: "x", "y" or "z" (the default) for SE(2) and E(2), such as the normal of a slab.
        seed: random seed of the frames drawn in evaluation; None draws from PyTorch's generator, as in training.
        evaluation: kind of frames in evaluation, such as "full" after training with "stochastic"; None for the same
            kind as in training.
        images: for periodic structures, "any": frames do not depend on which image of an atom is listed; "listed":
            frames of the listed positions, as published. Then outputs change when atoms are wrapped into the cell.

    Shapes:
        Those of the network inside.

    Raises:
        InputError: an option is unknown, or a structure is invalid.
        FieldError: an output is not in ``geoeq.fields``, or belongs to edges.

    Source:
        Puny et al., ICLR 2022, arXiv:2110.03336; "stochastic": Duval et al., ICML 2023, arXiv:2305.05577 (FAENet);
        "weighted": Dym, Lawrence & Siegel, ICML 2024, arXiv:2402.16077. Differs: see ``pca_frames`` and
        ``weighted_frames``; frames depend on all vectors, not only on positions; outputs of
        structures on a line or in a point are symmetrized about it.
    """

    group: FrameGroup  # type: ignore[assignment]

    def __init__(
        self,
        model: nn.Module,
        group: FrameGroup = "E(3)",
        frames: FrameKind = "full",
        axis: str | None = None,
        seed: int | None = None,
        evaluation: FrameKind | None = None,
        images: Images = "any",
    ) -> None:
        super().__init__(model)
        axis_number(group, axis)
        for kind in (frames, evaluation or frames):
            check_name("kind of frames", kind, get_args(FrameKind))
        check_name("group", group, get_args(FrameGroup))
        check_name("choice of images", images, get_args(Images))
        self.group, self.frames, self.seed = group, frames, seed
        self.evaluation = evaluation
        self.images: Images = images
        self.axis = axis or ("z" if group in ("SE(2)", "E(2)") else None)

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([GraphScalar("energy")], width=8, layers=1))

    def frames_of(self, data: Data) -> Frames:
        """Return the frames of structures; a small ``gap`` marks those that are nearly not unique.

        Raises:
            InputError: the group or axis is unknown.
        """
        vectors, graph, centroids = inputs_that_turn(data, self.group, self.images)
        kind = self.frames if self.training or self.evaluation is None else self.evaluation
        make = weighted_frames if kind == "weighted" else pca_frames
        frames = make(vectors, graph, centroids, self.group, self.axis)
        if kind != "stochastic":
            return frames
        fixed = None if self.training or self.seed is None else torch.Generator().manual_seed(self.seed)
        return frames.draw(fixed)
