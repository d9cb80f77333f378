"""Which nodes are neighbours: radius, nearest and complete graphs of many structures at once."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.errors import InputError, TensorError, unknown_name
from geoeq.lattice import lattice
from geoeq.neighbors.brute import nearest_pairs, open_pairs, periodic_pairs
from geoeq.neighbors.edges import (
    Edges,
    batch_from_ptr,
    edge_lengths,
    edge_vectors,
    full_edges,
    row_pointers,
    sort_edges,
)
from geoeq.neighbors.vesin import vesin_pairs

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

METHODS = ("auto", "brute", "vesin")


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
    """All pairs of one graph that are closer than a cutoff, periodic images included, for many graphs.

    A pair counts when its length, as ``edge_vectors`` and ``edge_lengths`` round it, is below the
    cutoff; so both methods give the same edges in the same order. A node is its own neighbour only
    through the boundary. The number of neighbours has no limit.

    Args:
        cutoff: in Å.
        method: "brute" tries all pairs, on any device, without a loop over graphs; "vesin" uses cell
            lists, on the CPU, graph by graph; "auto" takes what is likely to be faster.

    Shapes:
        positions: [N, 3] Å. ptr: [G + 1] int64, where graphs begin. cell: [G, 3, 3] Å, rows are the vectors.
        pbc: [G, 3] bool, the periodic directions; in others the cell vector is not used.

    Raises:
        CellError: a periodic direction has no cell vector, or the cell has no volume.
        ExtentError: a graph is too large, or its cell too small, for the cutoff.
    """
    if method not in METHODS:
        raise InputError(unknown_name("method of radius_edges", method, METHODS))
    if not 0 < cutoff < float("inf"):
        raise InputError(f"The cutoff is {cutoff}; it must be a positive length in Å.")
    if (cell is None) != (pbc is None):
        given, absent = ("cell", "pbc") if pbc is None else ("pbc", "cell")
        raise TensorError(f"radius_edges got {given} without {absent}: give both for periodic structures, or neither.")
    num_nodes = len(positions)
    batch = batch_from_ptr(ptr, num_nodes)
    if cell is None or pbc is None or not bool(pbc.any()):
        cell = periodic = None
    else:
        periodic = lattice(cell, pbc)
    shifts: Tensor | None = None
    if method == "vesin":
        sender, receiver, shifts = vesin_pairs(positions, ptr, batch, cutoff, periodic)
    elif periodic is not None:
        sender, receiver, shifts = periodic_pairs(positions, ptr, batch, cutoff, periodic)
    else:
        sender, receiver = open_pairs(positions, ptr, batch, cutoff)
        return Edges(sender, receiver, None, row_pointers(receiver, num_nodes))
    near = edge_lengths(edge_vectors(positions, sender, receiver, shifts, cell, batch)) < cutoff
    sender, receiver = sender[near], receiver[near]
    shifts = None if shifts is None else shifts[near]
    return Edges(sender, receiver, shifts, row_pointers(receiver, num_nodes))


@torch.no_grad()
def nearest_edges(positions: Tensor, ptr: Tensor, k: int) -> Edges:
    """Edges into each node from the k nearest other nodes of its graph, or from all if there are fewer.

    Of nodes that are equally near, the first ones count.

    Shapes:
        positions: [N, 3] Å. ptr: [G + 1] int64, where graphs begin.
    """
    if k < 1:
        raise InputError(f"k is {k}; each node needs at least one neighbour.")
    batch = batch_from_ptr(ptr, len(positions))
    sender, receiver = nearest_pairs(positions, ptr, batch, k)
    return Edges(sender, receiver, None, row_pointers(receiver, len(positions)))
