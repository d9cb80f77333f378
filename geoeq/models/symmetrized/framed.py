"""What the wrappers that look at structures from frames share: into the frames, through the network, and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.checks import check_inputs
from geoeq.errors import FieldError
from geoeq.fields import field
from geoeq.geometry.frames import Framed, Frames, average, in_frames
from geoeq.models.wrappers.wrapper import Wrapper
from geoeq.pointers import batch_from_ptr, graph_pointers

__all__ = ["FramedModel"]


class FramedModel(Wrapper):
    """A network that sees each structure from frames R, and whose outputs are turned back and averaged.

    With c the centroid and D(R) as ``geoeq.fields`` says that the output turns::

        f(x) = Σ_R w_R D(R) φ(Rᵀ (x - c))  (+ c, for what translates)

    All frames of all structures are one batch and one pass. ``x`` and ``edge_attr`` are taken for invariant. Which
    frames, ``frames_of`` says; where they turn with the structure, f is equivariant, whatever φ is.

    Args:
        model: the network φ, as of every Wrapper.
    """

    @abstractmethod
    def frames_of(self, data: Data) -> Frames:
        """The frames that structures are seen from."""

    def look(self, data: Data) -> tuple[Frames, Framed]:
        """The frames, and what the network sees from them."""
        frames = self.frames_of(data)
        return frames, in_frames(data, frames)

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Those of the network inside, of what it sees."""
        return {name: self._seen_by(loss) for name, loss in super().auxiliary_losses.items()}

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Outputs by name, with the symmetry of the group."""
        check_inputs(data, elements=self.elements, cutoff=self.cutoff)
        with torch.autocast(data.pos.device.type, enabled=False):
            frames, seen = self.look(data)
        outputs: dict[str, Tensor] = self.model(seen.batch)
        ptr = graph_pointers(data)
        batch = batch_from_ptr(ptr, len(data.pos))
        every = torch.arange(len(frames.graph), device=batch.device)
        rows = {"graph": (every, frames.graph, len(ptr) - 1), "node": (seen.frame, seen.node, len(batch))}
        averages = {}
        for name, value in outputs.items():
            known = field(name)
            if known.level not in rows:
                raise FieldError(f"'{name}' belongs to edges, which frames do not average over.")
            frame, target, count = rows[known.level]
            averages[name] = average(
                value.to(torch.promote_types(value.dtype, data.pos.dtype)), known.irreps, frames, frame, target, count
            )
            if known.translates:
                averages[name] = averages[name] + (
                    frames.centroids[batch] if known.level == "node" else frames.centroids
                )
        return averages

    def _seen_by(self, loss: Callable[[Batch], Tensor]) -> Callable[[Data], Tensor]:
        return lambda data: loss(self.look(data)[1].batch)
