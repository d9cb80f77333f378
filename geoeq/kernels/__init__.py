"""The hot operations: public functions, and the table of the backends that can do them.

Rows belong to segments (edges to their receiver, atoms to their graph). Every function takes the
segments either as a graph, ``segment_sum(values, graph)`` (edges by receiver), or as any index,
``segment_sum(values, index, num_segments)``, sorted or not.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from geoeq.errors import TensorError
from geoeq.kernels.backend import Backend, BackendStatus, Segments, choose, register, report, use
from geoeq.kernels.reference import Reference
from geoeq.kernels.torch_scatter import TorchScatter

__all__ = [
    "Backend",
    "BackendStatus",
    "Receivers",
    "Segments",
    "gather",
    "report",
    "segment_count",
    "segment_max",
    "segment_mean",
    "segment_softmax",
    "segment_sum",
    "use",
]

register("reference", Reference)
register("torch_scatter", TorchScatter)


class Receivers(Protocol):
    """A graph, as far as sums over its edges need it."""

    @property
    def receiver(self) -> Tensor: ...
    @property
    def row_pointers(self) -> Tensor: ...
    @property
    def num_nodes(self) -> int: ...


def _segments(values: Tensor, index: Tensor | Receivers, num_segments: int | None) -> Segments:
    if isinstance(index, Tensor):
        if num_segments is None:
            raise TensorError("segment functions need num_segments beside an index tensor; a graph needs neither.")
        segments = Segments(index, num_segments)
    else:
        segments = Segments(index.receiver, index.num_nodes, index.row_pointers)
    if segments.index.dim() != 1 or values.dim() == 0 or values.shape[0] != segments.index.shape[0]:
        raise TensorError(
            f"values has shape {list(values.shape)} and the index {list(segments.index.shape)}: "
            "the index is one-dimensional, with one entry for each row of values."
        )
    return segments


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Rows of ``x`` at ``index``; its derivative is a sum, not the slow accumulating index_put.

    Shapes:
        x: [N, ...]; index: [E] int64. Returns [E, ...].
    """
    return x.index_select(0, index)


def segment_sum(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Sum of the rows of each segment; 0 for an empty one.

    Shapes:
        values: [E, ...]; index: [E] int64, or a graph. Returns [num_segments, ...].

    Raises:
        TensorError: the index does not fit the values, or num_segments is missing beside an index.
    """
    return choose(values).segment_sum(values, _segments(values, index, num_segments))


def segment_count(index: Tensor, num_segments: int, dtype: torch.dtype) -> Tensor:
    """How many rows each segment has.

    Shapes:
        index: [E] int64. Returns [num_segments].
    """
    return torch.zeros(num_segments, dtype=dtype, device=index.device).index_add(
        0, index, torch.ones_like(index, dtype=dtype)
    )


def segment_mean(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Mean of the rows of each segment; 0 for an empty one. Shapes and errors as for ``segment_sum``."""
    segments = _segments(values, index, num_segments)
    count = segment_count(segments.index, segments.num_segments, values.dtype).clamp(min=1)
    total = choose(values).segment_sum(values, segments)
    return total / count.view(-1, *[1] * (values.dim() - 1))


def segment_max(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Largest row of each segment, entry by entry; 0 for an empty one. Shapes and errors as for ``segment_sum``."""
    return choose(values).segment_max(values, _segments(values, index, num_segments))


def segment_softmax(values: Tensor, index: Tensor | Receivers, num_segments: int | None = None) -> Tensor:
    """Softmax over the rows of each segment, entry by entry, without overflow.

    Shapes:
        values: [E, ...]; index: [E] int64, or a graph. Returns [E, ...]: the rows of a segment sum to one.
    """
    segments = _segments(values, index, num_segments)
    backend = choose(values)
    largest = backend.segment_max(values.detach(), segments)
    weights = (values - gather(largest, segments.index)).exp()
    return weights / gather(backend.segment_sum(weights, segments), segments.index)
