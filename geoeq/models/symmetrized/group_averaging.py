"""Group averaging: make any network equivariant by averaging its outputs over the elements of a group."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import InputError, check_sizes
from geoeq.geometry.frames import Frames, axis_number, fixed_frames, has_reflections, inputs_that_turn
from geoeq.geometry.rotations import finite_group, is_finite_group, random_orthogonals, random_rotations, random_turns
from geoeq.models.heads.scalar_heads import GraphScalar
from geoeq.models.networks.egnn import EGNN
from geoeq.models.symmetrized.framed import FramedModel

__all__ = ["GroupAveraging"]

#: infinite groups, from which elements are sampled.
_CONTINUOUS = ("SE(3)", "E(3)", "SE(2)", "E(2)")


class GroupAveraging(FramedModel):
    """Wrapper that averages a network over a finite group, or over random elements of any group.

    With the centroid c and F group elements g, rotations or reflections::

        f(x) = 1/F Σ_g D(g) φ(g⁻¹ (x - c))  (+ c, for outputs that translate)

    **All elements of a point group:** f is exactly equivariant under this group and translations, for every structure,
    and as smooth as φ; under other rotations it behaves as φ. This is the full symmetry of an atom in a cubic site
    ("Oh") or of a slab ("C4v"), but only part of that of free molecules ("I" has 60 elements).

    **Samples:** f is equivariant in expectation. Its variance is that of φ over the group divided by the number of
    samples, for independent draws; ``group`` then claims only translations.

    Args:
        model: the network, from Data to a dict with names of ``geoeq.fields``: a Model or any other module. In a
            checkpoint it must be a Model (or another Configurable).
        over: a point group of ``geoeq.geometry.rotations.finite_group``, such as "C4", "D3", "T", "O", "I", "Oh"; or,
            with samples, "SE(3)", "E(3)", "SE(2)" and "E(2)".
        axis: "x", "y" or "z" (the default), for SE(2) and E(2), and for cyclic and dihedral groups.
        samples: number of elements drawn for each structure, uniformly and with repetition; None takes all elements.
        seed: random seed of the elements drawn in evaluation, the same for every structure; None draws from PyTorch's
            generator.

    Shapes:
        Those of the network inside.

    Raises:
        InputError: the group or axis is unknown, or the group is infinite and ``samples`` is None, or a number is out
            of range.
        FieldError: an output is not in ``geoeq.fields``, or belongs to edges.

    Source:
        Reynolds' operator; as a wrapper of networks Basu et al., AAAI 2023, arXiv:2210.06475. Differs: infinite
        groups are sampled; outputs transform by the irreps of ``geoeq.fields``.
    """

    def __init__(
        self,
        model: nn.Module,
        over: str = "O",
        axis: str | None = None,
        samples: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(model)
        if over not in _CONTINUOUS:
            finite_group(over, axis or "z")
        elif samples is None:
            raise InputError(f"{over} is an infinite group: set the number of samples, or choose a point group.")
        else:
            axis_number(over, axis)
        check_sizes(self, samples=samples)
        self.over, self.samples, self.seed = over, samples, seed
        self.axis = axis or ("z" if is_finite_group(over) or over in ("SE(2)", "E(2)") else None)
        self.group = over if samples is None else "T(3)"  # type: ignore[assignment]

    @classmethod
    def example(cls) -> Self:
        return cls(EGNN([GraphScalar("energy")], width=8, layers=1), "T")

    def frames_of(self, data: Data) -> Frames:
        """Return the group elements as frames that do not rotate with the structure."""
        _, _, centroids = inputs_that_turn(data, self.over)
        if self.samples is None:
            return fixed_frames(finite_group(self.over, self.axis or "z"), centroids)
        fixed = not self.training and self.seed is not None
        generator = torch.Generator().manual_seed(self.seed or 0) if fixed else None
        drawn = self._draw(self.samples * (1 if fixed else len(centroids)), generator)
        return fixed_frames(drawn.unflatten(0, (-1, self.samples)), centroids)

    def _draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Return random group elements [count, 3, 3]."""
        if is_finite_group(self.over):
            elements = finite_group(self.over, self.axis or "z")
            return elements[torch.randint(len(elements), (count,), generator=generator)]
        if self.over in ("SE(3)", "E(3)"):
            draw = random_orthogonals if has_reflections(self.over) else random_rotations
            return draw(count, generator, torch.float64)
        turns = random_turns(
            count, torch.eye(3)[axis_number(self.over, self.axis) or 0].tolist(), generator, torch.float64
        )
        if has_reflections(self.over):
            mirrors = finite_group("C1v", self.axis or "z")  # the identity, and a mirror plane that contains the axis
            turns = turns @ mirrors[torch.randint(2, (count,), generator=generator)]
        return turns
