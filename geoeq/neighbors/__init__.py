"""Which nodes are neighbours: radius, nearest and complete graphs of many structures at once."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.neighbors.brute import nearest_pairs, open_pairs
from geoeq.neighbors.edges import (
    Edges,
    batch_from_ptr,
    edge_lengths,
    edge_vectors,
    full_edges,
    row_pointers,
    sort_edges,
)

__all__ = [
    "Edges",
    "batch_from_ptr",
    "edge_lengths",
    "edge_vectors",
    "full_edges",
    "nearest_edges",
    "radius_edges",
    "row_pointers",
    "sort_edges",
]


@torch.no_grad()
def radius_edges(
    positions: Tensor,
    ptr: Tensor,
    cutoff: float,
    cell: Tensor | None = None,
    pbc: Tensor | None = None,
    *,
    method: str = "auto",
) -> Edges:
    """All pairs of one graph that are closer than a cutoff, periodic images included."""
    batch = batch_from_ptr(ptr, len(positions))
    sender, receiver = open_pairs(positions, ptr, batch, cutoff)
    return Edges(sender, receiver, None, row_pointers(receiver, len(positions)))


@torch.no_grad()
def nearest_edges(positions: Tensor, ptr: Tensor, k: int) -> Edges:
    """Edges into each node from the k nearest other nodes of its graph."""
    batch = batch_from_ptr(ptr, len(positions))
    sender, receiver = nearest_pairs(positions, ptr, batch, k)
    return Edges(sender, receiver, None, row_pointers(receiver, len(positions)))
