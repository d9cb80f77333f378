"""Frame averaging: any network made equivariant, by the mean of what it says in the frames of its input."""

from __future__ import annotations

from typing import Literal, Self, get_args

import torch
from torch import nn
from torch_geometric.data import Data

from geoeq.errors import InputError, unknown_name
from geoeq.geometry.frames import FrameGroup, Frames, axis_number, inputs_that_turn, pca_frames, weighted_frames
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.networks.egnn import EGNN
from geoeq.models.symmetrized.framed import FramedModel

__all__ = ["FrameAveraging", "FrameKind"]

FrameKind = Literal["full", "stochastic", "weighted"]


class FrameAveraging(FramedModel):
    """A wrapper that gives any network the symmetry of a group.

    The network sees each structure from its frames R (positions, velocities and cells turned, and the centroid at
    the origin), all frames of all structures in one pass. What it says is turned back, as ``geoeq.fields`` says that
    the output turns, and averaged::

        f(x) = Σ_R w_R D(R) φ(Rᵀ (x - c))  (+ c, for what translates)

    The network need not know of any symmetry. What it can express is not restricted, and a network that is symmetric
    stays what it is.

    Derivatives by positions go through the frames, and are those of f. With "full" they have parts that grow as one
    over the gap of two principal moments, where f itself is about to jump; they stay finite
    (``geoeq.geometry.frames.eigenvectors``). With "weighted" they are finite and continuous throughout, but for
    structures on
    a line.

    The vectors that frames are made of are the positions, the velocities and the cell vectors: with only some of
    them the network could see in another how a symmetric structure is turned. A periodic structure has another
    centroid and other frames when its atoms are listed in other images: wrap positions always or never. ``x`` and
    ``edge_attr`` are taken for invariant.

    Args:
        model: the network, from Data to a dict of the names in ``geoeq.fields``: a Model or any other module. In
            a checkpoint it must be a Model (or another Configurable).
        group: "E(3)", "O(3)" (about the origin, no translations), "E(2)" (about ``axis``, translations of all
            directions), and "SE(3)", "SO(3)" and "SE(2)" without reflections.
        frames: "full", all 2 to 8 choices of signs of the principal axes; "stochastic", one of them at random,
            equivariant in expectation; "weighted", frames of pairs of vectors with weights that make the result
            continuous, and right for symmetric molecules too, whose principal axes are not unique.
        axis: "x", "y" or "z" (the default) for SE(2) and E(2), such as the normal of a slab.
        seed: of the frames drawn in evaluation; None draws from PyTorch's generator, as in training.
        evaluation: the frames when it is not in training, such as "full" where it is trained with "stochastic"; None
            for the same.

    Shapes:
        Those of the network, for the structures given.

    Raises:
        InputError: an option is unknown, or a structure cannot be what was meant.
        FieldError: an output is not in ``geoeq.fields``, or belongs to edges.

    Source:
        Puny et al., ICLR 2022, arXiv:2110.03336; "stochastic": Duval et al., ICML 2023, arXiv:2305.05577 (FAENet);
        "weighted": Dym, Lawrence & Siegel, ICML 2024, arXiv:2402.16077. Differs: see ``pca_frames`` and
        ``weighted_frames``; frames are of all vectors, not of positions alone; outputs of structures on
        a line or in a point are made symmetric about it.
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
    ) -> None:
        super().__init__(model)
        axis_number(group, axis)
        for kind in (frames, evaluation or frames):
            if kind not in get_args(FrameKind):
                raise InputError(unknown_name("kind of frames", kind, get_args(FrameKind)))
        if group not in get_args(FrameGroup):
            raise InputError(unknown_name("group", group, get_args(FrameGroup)))
        self.group, self.frames, self.seed = group, frames, seed
        self.evaluation = evaluation
        self.axis = axis or ("z" if group in ("SE(2)", "E(2)") else None)

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([GraphScalar("energy")], width=8, layers=1))

    def frames_of(self, data: Data) -> Frames:
        """The frames that structures are seen from; their ``gap`` says where they are (nearly) not unique.

        Raises:
            InputError: there is no such group or axis.
        """
        vectors, graph, centroids = inputs_that_turn(data, self.group)
        kind = self.frames if self.training or self.evaluation is None else self.evaluation
        make = weighted_frames if kind == "weighted" else pca_frames
        frames = make(vectors, graph, centroids, self.group, self.axis)
        if kind != "stochastic":
            return frames
        fixed = None if self.training or self.seed is None else torch.Generator().manual_seed(self.seed)
        return frames.draw(fixed)
