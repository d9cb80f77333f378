"""Frames of a point group: the element from which a network likes a structure best."""

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
from geoeq.models.symmetrized.canonicalizer import Canonicalizer, without_edges_of_others

__all__ = ["FrameScore", "ScoreCanonicalizer"]

#: scores whose difference is this many roundings are one score.
_TIE = 1e4


class FrameScore(Head):
    """A number for a structure as it stands, for ``ScoreCanonicalizer``: a mean over its atoms, of their scalars.

    Shapes:
        Returns "score" [G].
    """

    def __init__(self) -> None:
        super().__init__()
        self.names = ()

    def make(self, irreps: o3.Irreps) -> None:
        self.network = two_layers(self.width, 1)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        score = kernels.segment_mean(self.network(self.scalars(x)), graph.batch, graph.num_graphs)
        return {"score": score.squeeze(-1)}


class ScoreCanonicalizer(Canonicalizer):
    """The element g of a point group for which ``s(g⁻¹ (x - c))`` is largest, with s a network that knows no symmetry.

    The network sees a structure from every element, and the outer one from the best. A structure that is symmetric
    itself has several elements with the same score, which all count. As with any finite group frames jump where
    two scores change places, and outputs with them.

    Whatever s is, the frames turn with the group, exactly. In training gradients reach s as if the frame were
    ``Σ_g softmax(s)_g g``, which it is not; derivatives by positions are those of the outputs in any case, as they do
    not go through s.

    The loss "prior" is the cross entropy of softmax(s) and the identity.

    Args:
        network: a Model with the head ``FrameScore`` that tells orientations apart: of the group "T(3)".
        group: a point group of ``geoeq.geometry.rotations.finite_group``.
        axis: "x", "y" or "z" (the default): of cyclic and dihedral groups.

    Raises:
        InputError: there is no such group, or the network sees no difference between orientations.

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
            raise InputError(f"{name} needs the head FrameScore() to choose frames.")
        if network.group != "T(3)":
            raise InputError(f"{name} respects rotations: all frames are one to it. Take one of the group T(3).")
        self.network, self.group = network, group

    @classmethod
    def example(cls) -> Self:
        return cls(FAENet([FrameScore()], width=8, filters=8, layers=1, cutoff=4.0), "T")

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """The loss "prior"."""
        return {"prior": self._cross_entropy}

    def forward(self, data: Data) -> Frames:
        frames, scores = self._scores(data)
        best = scores.detach().amax(-1, keepdim=True)
        tie = _TIE * torch.finfo(scores.dtype).eps * best.abs().clamp(min=1)
        chosen = (scores.detach() >= best - tie).to(scores)  # [G, F]
        found = frames.reweighted((chosen / chosen.sum(-1, keepdim=True)).flatten())
        return self._with_gradients(found, scores) if self.training and scores.requires_grad else found

    def _scores(self, data: Data) -> tuple[Frames, Tensor]:
        """All elements as frames, and the score of each, [G, F]."""
        still = copy.copy(without_edges_of_others(data, self.network))
        for name in ("pos", "vel", "cell"):
            if getattr(data, name, None) is not None:
                still[name] = data[name].detach()
        elements = finite_group(self.group, self.axis or "z")
        frames = fixed_frames(elements, inputs_that_turn(still, self.group)[2])
        scores: Tensor = self.network(in_frames(still, frames).batch)["score"]
        return fixed_frames(elements, inputs_that_turn(data, self.group)[2]), scores.unflatten(0, (-1, len(elements)))

    def _with_gradients(self, frames: Frames, scores: Tensor) -> Frames:
        elements = finite_group(self.group, self.axis or "z").to(scores)
        mean = torch.einsum("gf,fij->gij", scores.softmax(-1), elements)
        change = (mean - mean.detach())[frames.graph].to(frames.rotations.dtype)
        return dataclasses.replace(frames, rotations=frames.rotations + change)

    def _cross_entropy(self, data: Data) -> Tensor:
        _, scores = self._scores(data)
        return cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64, device=scores.device))
