"""Base of the wrappers that show structures to a network from frames, and rotate its outputs back."""

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
    """A network that sees each structure from frames R, and whose outputs are rotated back and averaged.

    With the centroid c, and the representation D(R) of the output as ``geoeq.fields`` declares it::

        f(x) = Σ_R w_R D(R) φ(Rᵀ (x - c))  (+ c, for outputs that translate)

    All frames of all structures are evaluated in one batch. ``x`` and ``edge_attr`` are assumed invariant. Subclasses
    define the frames in ``frames_of``; if these rotate with the structure, f is equivariant, whatever φ is.

    Args:
        model: the network φ, as for every Wrapper.
    """

    @abstractmethod
    def frames_of(self, data: Data) -> Frames:
        """Return the frames of structures."""

    def look(self, data: Data) -> tuple[Frames, Framed]:
        """Return the frames, and the structures as seen from them."""
        frames = self.frames_of(data)
        return frames, in_frames(data, frames)

    @property
    def auxiliary_losses(self) -> Mapping[str, Callable[[Data], Tensor]]:
        """Auxiliary losses of the network inside, evaluated in the frames."""
        return {name: self._in_frames(loss) for name, loss in super().auxiliary_losses.items()}

    def forward(self, data: Data) -> dict[str, Tensor]:
        """Return outputs by name, with the symmetry of the group."""
        check_inputs(data, elements=self.elements, cutoff=self.cutoff)
        with torch.autocast(data.pos.device.type, enabled=False):
            frames, seen = self.look(data)
        outputs: dict[str, Tensor] = self.model(seen.batch)
        ptr = graph_pointers(data)
        batch = batch_from_ptr(ptr, len(data.pos))
        all_frames = torch.arange(len(frames.graph), device=batch.device)
        rows = {"graph": (all_frames, frames.graph, len(ptr) - 1), "node": (seen.frame, seen.node, len(batch))}
        averages = {}
        for name, value in outputs.items():
            known = field(name)
            if known.level not in rows:
                raise FieldError(f"'{name}' belongs to edges, which cannot be averaged over frames.")
            frame, target, count = rows[known.level]
            value = value.to(torch.promote_types(value.dtype, data.pos.dtype))
            averages[name] = average(value, known.irreps, frames, frame, target, count)
            if known.translates:
                centroids = frames.centroids[batch] if known.level == "node" else frames.centroids
                averages[name] = averages[name] + centroids
        return averages

    def _in_frames(self, loss: Callable[[Batch], Tensor]) -> Callable[[Data], Tensor]:
        return lambda data: loss(self.look(data)[1].batch)
