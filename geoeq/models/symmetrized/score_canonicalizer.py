"""Learned canonicalization under a point group: the element with the highest score of a network."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Self

import torch
from e3nn import o3
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError
from geoeq.geometry.frames import Frames, fixed_frames, in_frames, inputs_that_turn
from geoeq.geometry.rotations import finite_group
from geoeq.graph import Graph
from geoeq.models.heads.head import Head, two_layers
from geoeq.models.model import Model
from geoeq.models.networks.faenet import FAENet
from geoeq.models.symmetrized.canonicalizer import Canonicalizer, without_foreign_edges

__all__ = ["FrameScore", "ScoreCanonicalizer"]

#: scores that differ by less than this many rounding errors are equal.
_TIE = 1e4


class FrameScore(Head):
    """Score of a structure in its orientation, for ``ScoreCanonicalizer``: the mean over atoms of a network of scalars.

    Shapes:
        Returns "score" [G].
    """

    def __init__(self) -> None:
        super().__init__()
        self.names = ()

    def make(self, irreps: o3.Irreps) -> None:
        self.network = two_layers(self, 1)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        score = kernels.segment_mean(self.network(self.scalars(x)), graph.batch, graph.num_graphs)
        return {"score": score.squeeze(-1)}


class ScoreCanonicalizer(Canonicalizer):
    """The element g of a point group with the largest score ``s(g⁻¹ (x - c))``, where s is a network without symmetry.

    The score network sees a structure from every element, and the outer network only from the best one. A symmetric
    structure has several elements with the same score, which all count. As with any finite group, frames and outputs
    jump where two scores cross.

    Whatever s is, the frames are exactly equivariant under the group. In training, gradients reach s as if the frame
    were ``Σ_g softmax(s)_g g``; derivatives by positions are exact in any case, as they do not go through s.

    The loss "prior" is the cross entropy of softmax(s) and the identity.

    Args:
        network: a Model with the head ``FrameScore`` that distinguishes orientations: one of the group "T(3)".
        group: a point group of ``geoeq.geometry.rotations.finite_group``.
        axis: "x", "y" or "z" (the default), for cyclic and dihedral groups.

    Raises:
        InputError: the group is unknown, or the network does not distinguish orientations.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489, section 3.2, and Mondal et al., NeurIPS 2023, arXiv:2310.01647, for
        the gradient and the prior. Differs: equal scores have equal weights; positions are not differentiated
        through s.
    """

    def __init__(self, network: Model, group: str = "O", axis: str | None = None) -> None:
        super().__init__()
        self.axis = axis or "z"
        finite_group(group, self.axis)
        name = type(network).__name__
        if not any(isinstance(head, FrameScore) for head in network.heads):
            raise InputError(f"{name} needs the head FrameScore() to score frames.")
        if network.group != "T(3)":
            raise InputError(f"{name} respects rotations and cannot score frames: use a network of the group T(3).")
        self.network, self.group = network, group

    @classmethod
    def example(cls) -> Self:
        return cls(FAENet([FrameScore()], width=8, filters=8, layers=1, cutoff=4.0), "T")

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Auxiliary loss "prior"."""
        return {"prior": self._cross_entropy}

    def forward(self, data: Data) -> Frames:
        frames, scores = self._scores(data)
        best = scores.detach().amax(-1, keepdim=True)
        tie = _TIE * torch.finfo(scores.dtype).eps * best.abs().clamp(min=1)
        chosen = (scores.detach() >= best - tie).to(scores)  # [G, F]
        frames = frames.reweighted((chosen / chosen.sum(-1, keepdim=True)).flatten())
        return self._with_gradients(frames, scores) if self.training and scores.requires_grad else frames

    def _scores(self, data: Data) -> tuple[Frames, Tensor]:
        """Return all elements as frames, and the score of each, [G, F]."""
        detached = copy.copy(without_foreign_edges(data, self.network))
        for name in ("pos", "vel", "cell"):
            if getattr(data, name, None) is not None:
                detached[name] = data[name].detach()
        elements = finite_group(self.group, self.axis or "z")
        frames = fixed_frames(elements, inputs_that_turn(detached, self.group)[2])
        scores: Tensor = self.network(in_frames(detached, frames).batch)["score"]
        return fixed_frames(elements, inputs_that_turn(data, self.group)[2]), scores.unflatten(0, (-1, len(elements)))

    def _with_gradients(self, frames: Frames, scores: Tensor) -> Frames:
        elements = finite_group(self.group, self.axis or "z").to(scores)
        mean = torch.einsum("gf,fij->gij", scores.softmax(-1), elements)
        change = (mean - mean.detach())[frames.graph].to(frames.rotations.dtype)
        return dataclasses.replace(frames, rotations=frames.rotations + change)

    def _cross_entropy(self, data: Data) -> Tensor:
        _, scores = self._scores(data)
        return cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64, device=scores.device))
