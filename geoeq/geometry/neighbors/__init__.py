"""Which nodes are neighbours: radius, nearest and complete graphs of many structures at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geoeq.errors import InputError, TensorError, unknown_name
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

#: Pairs to try per node above which cell lists are faster on one core of a CPU.
CPU_WIDTH = 1000

#: Pairs to try, all in all, above which cell lists on the CPU are faster than a GPU, and which take about a second.
GPU_PAIRS = 2**32

#: Pairs to try, all in all, above which brute force is no way out for graphs too large for cell lists.
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
        TensorError: of cell and pbc only one is given.
    """
    if method not in METHODS:
        raise InputError(unknown_name("method of radius_edges", method, METHODS))
    if not 0 < cutoff < float("inf"):
        raise InputError(f"The cutoff is {cutoff}; it must be a positive length in Å.")
    num_nodes = len(positions)
    if num_nodes == 0:
        return no_edges(ptr)
    batch = batch_from_ptr(ptr, num_nodes)
    periodic = _lattice(cell, pbc)
    if method == "auto":
        method = _faster(positions, ptr, batch, cutoff, periodic)
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
    """The lattices, or None where nothing is periodic."""
    if cell is not None and pbc is None:
        raise TensorError("A cell is given without pbc: say in which directions it repeats, [G, 3] bool.")
    if pbc is None or not bool(pbc.any()):
        return None
    if cell is None:
        raise TensorError("pbc is given without a cell: give the cell vectors, [G, 3, 3] in Å.")
    return lattice(cell, pbc)


def _faster(positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float, periodic: Lattice | None) -> str:
    width = largest_graph(ptr)
    if periodic is not None:
        width *= math.prod(2 * n + 1 for n in image_ranges(periodic, cutoff))
    pairs = width * len(positions)
    if width <= CPU_WIDTH or (positions.device.type != "cpu" and pairs <= GPU_PAIRS):
        return "brute"
    if pairs <= MANY_PAIRS and bool(oversized(positions, batch, len(ptr) - 1, cutoff, periodic).any()):
        return "brute"
    return "vesin"


@torch.no_grad()
def nearest_edges(positions: Tensor, ptr: Tensor, k: int) -> Edges:
    """Edges into each node from the k nearest other nodes of its graph, or from all if there are fewer.

    Of nodes that are equally near, the first ones count.

    Shapes:
        positions: [N, 3] Å. ptr: [G + 1] int64, where graphs begin.
    """
    if k < 1:
        raise InputError(f"k is {k}; each node needs at least one neighbour.")
    if len(positions) == 0:
        return no_edges(ptr)
    batch = batch_from_ptr(ptr, len(positions))
    sender, receiver = nearest_pairs(positions, ptr, batch, k)
    return Edges(sender, receiver, None, row_pointers(receiver, len(positions)))
