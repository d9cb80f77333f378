"""Canonicalization: any network made equivariant, by one frame of its input that is found or learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.geometry.frames import Frames, has_translations
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.networks.egnn import EGNN
from geoeq.models.symmetrized.canonicalizer import Canonicalizer, PCACanonicalizer
from geoeq.models.symmetrized.framed import FramedModel

__all__ = ["Canonicalization"]


class Canonicalization(FramedModel):
    """A wrapper that gives any network the symmetry of a group: it sees every structure in a canonical orientation.

    With R(x) the frame that the canonicalizer finds, and c the centroid::

        f(x) = D(R) φ(Rᵀ (x - c))  (+ c, for what translates)

    As R turns with the structure, f is equivariant, at the cost of one pass of φ and the canonicalizer. Where there is
    no such R, because the structure is symmetric, f is a mean over several frames; which, and what that means at
    its borders, each canonicalizer says.

    A network that was trained on structures as they come knows some orientations well; a canonicalizer that turns
    everything to others spoils it. ``loss: {auxiliary: {prior: 0.1}}`` in a recipe pulls frames to those of the data:

    - "prior": ``Σ_R w_R |R - 1|²``, the squared Frobenius distance ``2 tr(1 - R)``, 0 to 8 (12 with reflections); of
      a finite group the cross entropy of the identity;
    - "prior_angle": the squared angle of R, in radians; for groups without reflections;
    - "orbit", of ``NetworkCanonicalizer``: see there.

    Losses of the network inside, which sees structures from their frames, come along.

    Args:
        model: the network, from Data to a dict of the names in ``geoeq.fields``: a Model or any other module. In
            a checkpoint it must be a Model (or another Configurable).
        canonicalizer: what finds the frames, for its group.

    Shapes:
        Those of the network, for the structures given.

    Raises:
        InputError: a structure cannot be what was meant.
        FieldError: an output is not in ``geoeq.fields``, or belongs to edges.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489, eqs. 2-4; the prior: Mondal et al., NeurIPS 2023, arXiv:2310.01647.
        Differs: symmetric structures have several frames with weights, and not one at random.
    """

    def __init__(self, model: nn.Module, canonicalizer: Canonicalizer) -> None:
        super().__init__(model)
        self.canonicalizer = canonicalizer

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([GraphScalar("energy")], width=8, layers=1), PCACanonicalizer())

    @property
    def group(self) -> str:  # type: ignore[override]
        """That of the canonicalizer; where its frames are random, only translations are sure, or nothing ("1")."""
        group = self.canonicalizer.group
        if not self.canonicalizer.random:
            return group
        return "T(3)" if has_translations(group) else "1"

    @property
    def axis(self) -> str | None:
        """That of the canonicalizer."""
        return self.canonicalizer.axis

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Those of the canonicalizer, and those of the network inside."""
        return {**super().auxiliary_losses, **self.canonicalizer.auxiliary_losses}

    def frames_of(self, data: Data) -> Frames:
        """The frames that structures are seen from, mostly one each."""
        frames: Frames = self.canonicalizer(data)
        return frames
