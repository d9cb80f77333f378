"""Canonicalization: make any network equivariant by one computed or learned frame of its input."""

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
    """Wrapper that gives any network the symmetry of a group by showing it structures in a canonical orientation.

    With the frame R(x) of the canonicalizer, and the centroid c::

        f(x) = D(R) φ(Rᵀ (x - c))  (+ c, for outputs that translate)

    As R rotates with the structure, f is equivariant, at the cost of one pass of φ and the canonicalizer. For symmetric
    structures, which have no unique R, f is a mean over several frames; each canonicalizer documents which, and whether
    f is continuous near such structures.

    A network that was trained on the orientations of a data set suffers from a canonicalizer that rotates structures to
    other orientations. ``loss: {auxiliary: {prior: 0.1}}`` in a recipe pulls frames towards those of the data:

    - "prior": ``Σ_R w_R |R - 1|²``, the squared Frobenius distance ``2 tr(1 - R)``, 0 to 8 (12 with reflections); for
      a finite group the cross entropy of the identity;
    - "prior_angle": the squared angle of R, in radians; for groups without reflections;
    - "orbit": see ``NetworkCanonicalizer``.

    The auxiliary losses of the network inside, evaluated in the frames, are available too.

    Args:
        model: the network, from Data to a dict with names of ``geoeq.fields``: a Model or any other module. In a
            checkpoint it must be a Model (or another Configurable).
        canonicalizer: the canonicalizer, which also determines the group.

    Shapes:
        Those of the network inside.

    Raises:
        InputError: a structure is invalid.
        FieldError: an output is not in ``geoeq.fields``, or belongs to edges.

    Source:
        Kaba et al., ICML 2023, arXiv:2211.06489, eqs. 2-4; the prior: Mondal et al., NeurIPS 2023, arXiv:2310.01647.
        Differs: symmetric structures have several frames with weights, not one at random.
    """

    def __init__(self, model: nn.Module, canonicalizer: Canonicalizer) -> None:
        super().__init__(model)
        self.canonicalizer = canonicalizer

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([GraphScalar("energy")], width=8, layers=1), PCACanonicalizer())

    @property
    def group(self) -> str:  # type: ignore[override]
        """Group of the canonicalizer; if its frames are random, only translations, or nothing ("1")."""
        group = self.canonicalizer.group
        if not self.canonicalizer.random:
            return group
        return "T(3)" if has_translations(group) else "1"

    @property
    def axis(self) -> str | None:
        """Axis of the canonicalizer."""
        return self.canonicalizer.axis

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Auxiliary losses of the canonicalizer and of the network inside."""
        return {**super().auxiliary_losses, **self.canonicalizer.auxiliary_losses}

    def frames_of(self, data: Data) -> Frames:
        """Return the frames of structures, mostly one each."""
        frames: Frames = self.canonicalizer(data)
        return frames
