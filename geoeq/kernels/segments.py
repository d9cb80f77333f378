"""Segments of rows, edges of a graph, and blocks of columns: the index arguments of the operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geoeq.errors import TensorError
from geoeq.pointers import sorted_by

__all__ = ["Blocks", "EdgeTensors", "Edges", "Receivers", "Segments", "edge_tensors", "segments_of"]

#: (rows, channels) of the blocks that lie side by side in a row of a tensor.
Blocks = tuple[tuple[int, int], ...]


class Receivers(Protocol):
    """The part of a graph that sums over its edges need."""

    @property
    def receiver(self) -> Tensor: ...
    @property
    def row_pointers(self) -> Tensor: ...
    @property
    def num_nodes(self) -> int: ...


class Edges(Receivers, Protocol):
    """The part of a graph that messages along its edges need."""

    @property
    def sender(self) -> Tensor: ...
    @property
    def by_sender(self) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class Segments:
    """The segment of each row.

    Attributes:
        index: [E] int64, the segment of each row, in any order.
        num_segments: number of segments; some may be empty.
        row_pointers: [num_segments + 1] int64 if ``index`` is sorted: segment s consists of the rows
            ``row_pointers[s]`` to ``row_pointers[s + 1]``. None if the order is unknown.
    """

    index: Tensor
    num_segments: int
    row_pointers: Tensor | None = None


@dataclass(frozen=True)
class EdgeTensors:
    """Both ends of each edge; edges are sorted by receiver.

    Attributes:
        sender, receiver: [E] int64.
        row_pointers: [N + 1] int64; the edges into node n are row_pointers[n] to row_pointers[n + 1].
        order, pointers: edges sorted by sender, [E], and the first entry of each sender in that list, [N + 1]. Both
            are empty if not computed yet (senders and receivers are then the same nodes).
    """

    sender: Tensor
    receiver: Tensor
    row_pointers: Tensor
    order: Tensor
    pointers: Tensor

    @property
    def num_nodes(self) -> int:
        """Number N of receiving nodes."""
        return self.row_pointers.shape[0] - 1

    @classmethod
    def from_edges(cls, receiver: Tensor, row_pointers: Tensor) -> EdgeTensors:
        """Return edges that are their own senders: the features sent have one row per edge."""
        pointers = torch.arange(receiver.shape[0] + 1, device=receiver.device)
        return cls(pointers[:-1], receiver, row_pointers, pointers[:-1], pointers)

    def by_sender(self) -> tuple[Tensor, Tensor]:
        """Return order and pointers, computing them if they are empty."""
        return (self.order, self.pointers) if self.pointers.numel() else sorted_by(self.sender, self.num_nodes)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return all five tensors in the order of the constructor."""
        return self.sender, self.receiver, self.row_pointers, self.order, self.pointers


def segments_of(values: Tensor, index: Tensor | Receivers, num_segments: int | None) -> Segments:
    """Return the segments of the rows of ``values``, from an index or from the receivers of a graph.

    Raises:
        TensorError: the index does not fit the values, or an index comes without num_segments.
    """
    if isinstance(index, Tensor):
        if num_segments is None:
            raise TensorError("segment functions need num_segments with an index tensor (but not with a graph).")
        segments = Segments(index, num_segments)
    else:
        segments = Segments(index.receiver, index.num_nodes, index.row_pointers)
    if segments.index.dim() != 1 or values.dim() == 0 or values.shape[0] != segments.index.shape[0]:
        raise TensorError(
            f"values has shape {list(values.shape)} and the index {list(segments.index.shape)}: "
            "the index must be one-dimensional, with one entry per row of values."
        )
    return segments


def edge_tensors(graph: Edges, x: Tensor) -> EdgeTensors:
    """Return the edges of a graph; sorted by sender too, if the gradient with respect to x needs that order.

    The order is taken from the graph, so that all layers share it.
    """
    sort = torch.is_grad_enabled() and x.requires_grad and not torch.compiler.is_compiling()
    order = graph.by_sender if sort else (graph.sender.new_empty(0), graph.sender.new_empty(0))
    return EdgeTensors(graph.sender, graph.receiver, graph.row_pointers, *order)
