"""Neighbour lists: radius, nearest-neighbour and complete graphs of many structures at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geoeq.derivatives import in_transform
from geoeq.errors import InputError, TensorError, check_name
from geoeq.geometry.lattice import Lattice, lattice
from geoeq.geometry.neighbors.brute import largest_graph, nearest_pairs, open_pairs, periodic_pairs
from geoeq.geometry.neighbors.edges import (
    Edges,
    edge_lengths,
    edge_vectors,
    full_edges,
    no_edges,
    select_edges,
    sort_edges,
)
from geoeq.geometry.neighbors.limits import image_ranges, oversized
from geoeq.geometry.neighbors.vesin import vesin_pairs
from geoeq.pointers import batch_from_ptr, row_pointers

__all__ = [
    "Edges",
    "edge_lengths",
    "edge_vectors",
    "full_edges",
    "nearest_edges",
    "radius_edges",
    "select_edges",
    "sort_edges",
]

METHODS = ("auto", "brute", "vesin")

#: Cell lists are faster on one CPU core for graphs with more nodes than the first number, plus the second for each
#: neighbour within the cutoff: they take time for each edge, and a search of all pairs for each pair.
CPU_NODES, CPU_NODES_PER_NEIGHBOR = 200, 5

#: Number of nodes whose neighbours are counted to choose the method.
SAMPLE = 16

#: Total number of pairs above which cell lists on the CPU are faster than a GPU; they take about a second.
GPU_PAIRS = 2**32

#: Total number of pairs up to which graphs too large for cell lists are searched by brute force.
MANY_PAIRS = 2**31


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
    """Return all pairs of nodes of each graph that are closer than a cutoff, periodic images included.

    A pair is included if its length, as rounded by ``edge_vectors`` and ``edge_lengths``, is below the cutoff; both
    methods therefore give the same edges in the same order. A node is its own neighbour only through the boundary. The
    number of neighbours is unlimited.

    Args:
        cutoff: cutoff radius in Å.
        method: "brute" tests all pairs, on any device, without a loop over graphs; "vesin" uses cell lists, on the CPU,
            graph by graph; "auto" chooses the one that is probably faster.

    Shapes:
        positions: [N, 3] Å. ptr: [G + 1] int64, the first node of each graph. cell: [G, 3, 3] Å, rows are the vectors.
        pbc: [G, 3] bool, the periodic directions; cell vectors of other directions are ignored.

    Raises:
        CellError: a periodic direction has no cell vector, or the cell has no volume.
        ExtentError: a graph is too large, or its cell too small, for the cutoff.
        InputError: the method is unknown, or the cutoff is not positive and finite.
        TensorError: only one of cell and pbc is given.
    """
    check_name("method of radius_edges", method, METHODS)
    if not 0 < cutoff < float("inf"):
        raise InputError(f"The cutoff is {cutoff}; it must be a positive length in Å.")
    num_nodes = len(positions)
    if num_nodes == 0:
        return no_edges(ptr)
    batch = batch_from_ptr(ptr, num_nodes)
    periodic = _lattice(cell, pbc)
    if method == "auto":  # a transform hides the numbers that cell lists need
        method = "brute" if in_transform() else _faster(positions, ptr, batch, cutoff, periodic)
    shifts: Tensor | None = None
    if method == "vesin":
        sender, receiver, shifts = vesin_pairs(positions, ptr, batch, cutoff, periodic)
    elif periodic is not None:
        sender, receiver, shifts = periodic_pairs(positions, ptr, batch, cutoff, periodic)
    else:
        sender, receiver = open_pairs(positions, ptr, batch, cutoff)
        return Edges(sender, receiver, None, row_pointers(receiver, num_nodes))
    near = edge_lengths(edge_vectors(positions, sender, receiver, shifts, cell, batch)) < cutoff
    return select_edges(sender, receiver, shifts, near.nonzero().squeeze(1), num_nodes)


def _lattice(cell: Tensor | None, pbc: Tensor | None) -> Lattice | None:
    """Return the lattices, or None if nothing is periodic."""
    if cell is not None and pbc is None:
        raise TensorError("A cell is given without pbc: add the periodic directions, [G, 3] bool.")
    if pbc is None or not bool(pbc.any()):
        return None
    if cell is None:
        raise TensorError("pbc is given without a cell: add the cell vectors, [G, 3, 3] in Å.")
    return lattice(cell, pbc)


def _faster(positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float, periodic: Lattice | None) -> str:
    width = largest_graph(ptr)
    images = 1 if periodic is None else math.prod(2 * n + 1 for n in image_ranges(periodic, cutoff))
    pairs = width * images * len(positions)
    if width <= CPU_NODES or (positions.device.type != "cpu" and pairs <= GPU_PAIRS):
        return "brute"
    if width <= CPU_NODES + CPU_NODES_PER_NEIGHBOR * _mean_neighbors(positions, ptr, cutoff):
        return "brute"
    if pairs <= MANY_PAIRS and bool(oversized(positions, batch, len(ptr) - 1, cutoff, periodic).any()):
        return "brute"
    return "vesin"


def _mean_neighbors(positions: Tensor, ptr: Tensor, cutoff: float) -> float:
    """Return the mean number of neighbours of some nodes of the largest graph, without those of other images."""
    start, stop = ptr[ptr.diff().argmax() :][:2].tolist()
    nodes = positions[start:stop]
    some = nodes[:: len(nodes) // SAMPLE + 1]
    return float((torch.cdist(some, nodes) < cutoff).sum()) / len(some)


@torch.no_grad()
def nearest_edges(positions: Tensor, ptr: Tensor, k: int) -> Edges:
    """Return the edges into each node from its k nearest nodes in the graph, or from all if there are fewer.

    Among equally near nodes, the first ones are taken.

    Shapes:
        positions: [N, 3] Å. ptr: [G + 1] int64, the first node of each graph.
    """
    if k < 1:
        raise InputError(f"k is {k}; each node needs at least one neighbour.")
    if len(positions) == 0:
        return no_edges(ptr)
    batch = batch_from_ptr(ptr, len(positions))
    sender, receiver = nearest_pairs(positions, ptr, batch, k)
    return Edges(sender, receiver, None, row_pointers(receiver, len(positions)))
