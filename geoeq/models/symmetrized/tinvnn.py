"""TinvNN: make any network invariant by giving it coordinates computed from distances."""

from __future__ import annotations

import copy
from typing import Literal, Self, get_args

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq.errors import FieldError, check_name, check_sizes
from geoeq.fields import field
from geoeq.geometry.frames import (
    Framed,
    Frames,
    Scaling,
    in_frames,
    multidimensional_scaling,
    signed_frames,
    spread_landmarks,
)
from geoeq.geometry.lattice import check_open
from geoeq.models.networks.faenet import FAENet
from geoeq.models.networks.faenet_heads import EveryLayerScalar
from geoeq.models.symmetrized.framed import FramedModel
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = ["AxisSigns", "TinvNN"]

AxisSigns = Literal["average", "moments"]


class TinvNN(FramedModel):
    """Wrapper that gives any network coordinates computed from distances only, so that its scalars are invariant.

    The network sees the coordinates from multidimensional scaling of the distances to some landmark atoms
    (``geoeq.geometry.frames.multidimensional_scaling``): an isometric copy of the structure that does not depend on its
    orientation, handedness or position. The network is unchanged, and of the geometry only handedness is lost.

    The copy is unique up to the signs of its axes and, if two spreads are equal (``scaling(data).gap``), the choice of
    axes. Signs are handled in one of two ways:

    - "average": the mean over all choices, 8 copies.
    - "moments": the signs with which the third moments of the coordinates are positive, 1 copy of most structures; if
      a moment vanishes, as for a structure that is its own mirror image across an axis, the mean over both signs, with
      a smooth transition near that case (``geoeq.geometry.frames.signed_frames``).

    Both are exactly invariant wherever the axes are unique.

    If spreads are equal (methane, benzene, and every structure with an axis of order three or more), the choice of axes
    is arbitrary, and outputs are finite but **not invariant**; near such structures outputs jump. Use
    ``FrameAveraging(frames="weighted")`` for them.

    **Relation to frames:** for distances between points in space, the coordinates from scaling are those in the frame
    of the principal axes. For scalars, "average" is the same function as ``FrameAveraging(model, frames="full")``, and
    "moments" as ``Canonicalization`` with a ``PCACanonicalizer``, apart from velocities. This wrapper does not use what
    scaling could add, coordinates for distances that no points have. It costs N K distances, and an eigenvalue problem
    of size K for each structure.

    Velocities are hidden from the network, as distances do not contain them. ``x`` and ``edge_attr`` are assumed
    invariant; given edges are kept.

    Args:
        model: the network, from Data to a dict of scalars in ``geoeq.fields``: a Model or any other module. In a
            checkpoint it must be a Model (or another Configurable).
        signs: treatment of the signs of axes, "average" or "moments".
        landmarks: number K of landmarks, 4 or more; None takes all atoms. Coordinates depend on it only by rounding, as
            landmarks span the structure (``geoeq.geometry.frames.spread_landmarks``).

    Shapes:
        Those of the network inside.

    Raises:
        InputError: an option is unknown, or there are fewer than four landmarks.
        CellError: a structure is periodic: no points in space have the distances to the images of an atom.
        FieldError: an output is not a scalar. Forces can be computed as derivatives of an energy.

    Source:
        Zhang, Wang, Zhang, Cui & Zhu, Revisiting transformation invariant geometric deep learning, 2021
        (initial representations by multidimensional scaling before any network); landmarks: de Silva and Tenenbaum,
        2004. Differs: both treatments of signs, and the choice of landmarks, are geoeq's and were not compared with
        code of the authors; coordinates keep their scale, and are not normalised for invariance to it.
    """

    def __init__(self, model: nn.Module, signs: AxisSigns = "average", landmarks: int | None = 16) -> None:
        super().__init__(model)
        check_name("treatment of signs", signs, get_args(AxisSigns))
        check_sizes(self, least=4, landmarks=landmarks)  # four points span a structure in space
        self.signs, self.landmarks = signs, landmarks
        for name in self.fields:
            _check_scalar(name)

    @classmethod
    def example(cls) -> Self:
        inner = FAENet([EveryLayerScalar("energy")], width=8, filters=8, layers=1, num_basis=8, cutoff=4.0)
        return cls(inner)

    def scaling(self, data: Data) -> Scaling:
        """Return the coordinates, with arbitrary signs of the axes, and how well they are determined.

        Raises:
            CellError: a structure is periodic.
        """
        check_open(
            getattr(data, "pbc", None),
            "and no points in space have the distances to the images of its atoms: use FrameAveraging, or set pbc to "
            "False.",
        )
        ptr, pos = graph_pointers(data), data.pos.double()
        landmarks = spread_landmarks(pos, ptr, self.landmarks)
        batch = batch_from_ptr(ptr, len(pos))
        offsets = pos.unsqueeze(1) - pos[landmarks.clamp(min=0)][batch]  # [N, K, 3]
        return multidimensional_scaling(offsets.square().sum(-1), landmarks, ptr)

    def frames_of(self, data: Data) -> Frames:
        """Return the signs of the axes, as reflections about the origin."""
        return self._signed(data, self.scaling(data))

    def look(self, data: Data) -> tuple[Frames, Framed]:
        """Return the signs, and the structures with the coordinates of each choice of signs."""
        scaling = self.scaling(data)
        frames = self._signed(data, scaling)
        shown = copy.copy(data)
        for name in ("vel", "cell", "pbc"):
            if getattr(shown, name, None) is not None:
                delattr(shown, name)
        shown.pos = scaling.coordinates.to(data.pos.dtype)
        return frames, in_frames(shown, frames)

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return invariant outputs by name."""
        outputs = super().forward(data)
        for name in outputs:
            _check_scalar(name)
        return outputs

    def _signed(self, data: Data, scaling: Scaling) -> Frames:
        spread = scaling.spread
        num_graphs, dtype = len(spread), data.pos.dtype
        table = torch.cartesian_prod(*[spread.new_tensor([1.0, -1.0])] * 3).to(dtype)  # [8, 3]
        one = table.new_ones(8 * num_graphs)
        frames = Frames(
            rotations=torch.diag_embed(table).repeat(num_graphs, 1, 1),
            graph=torch.arange(num_graphs, device=spread.device).repeat_interleave(8),
            weights=one / 8,
            centroids=data.pos.new_zeros(num_graphs, 3),
            gap=scaling.gap.to(dtype),
            off_axis=one,
            on_axis=one,
        )
        if self.signs == "average":
            return frames
        batch = batch_from_ptr(graph_pointers(data), len(data.pos))
        return signed_frames(frames, scaling.coordinates, batch)


def _check_scalar(name: str) -> None:
    if any(ir.l > 0 or ir.p < 0 for _, ir in o3.Irreps(field(name).irreps)):
        raise FieldError(
            f"TinvNN gives only invariants, and '{name}' rotates with the structure: use FrameAveraging, or the "
            "derivative of an energy."
        )
