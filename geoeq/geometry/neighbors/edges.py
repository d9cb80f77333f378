"""Edges sorted by receiver, as returned by every neighbour search."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.geometry.lattice import Lattice
from geoeq.pointers import batch_from_ptr, row_pointers

__all__ = [
    "Edges",
    "candidate_radius",
    "edge_lengths",
    "edge_order",
    "edge_vectors",
    "full_edges",
    "no_edges",
    "select_edges",
    "sort_edges",
]


class Edges(NamedTuple):
    """Directed edges, sorted by receiver, then sender, then shift.

    Shapes:
        sender: [E] int64, j. receiver: [E] int64, i.
        shifts: [E, 3] integers in the dtype of the positions, or None if nothing is periodic;
        the edge vector is r_j - r_i + shift @ cell.
        row_pointers: [N + 1] int64; the edges into node i are row_pointers[i] to row_pointers[i + 1].
    """

    sender: Tensor
    receiver: Tensor
    shifts: Tensor | None
    row_pointers: Tensor


def edge_vectors(
    positions: Tensor, sender: Tensor, receiver: Tensor, shifts: Tensor | None, cell: Tensor | None, batch: Tensor
) -> Tensor:
    """Return the vectors r_j - r_i + shift @ cell from receiver i to sender j, differentiable in positions and cell.

    Terms are added in a fixed order, so that all callers get identical bits.

    Shapes:
        positions: [N, 3] Å. sender, receiver: [E]. shifts: [E, 3] or None. cell: [G, 3, 3] Å or None.
        batch: [N]. Returns [E, 3] Å.
    """
    # index_select is several times as fast as indexing on a CPU.
    vectors: Tensor = positions.index_select(0, sender) - positions.index_select(0, receiver)  # [E, 3]
    if shifts is None or cell is None:
        return vectors
    cells = cell if cell.shape[0] == 1 else cell.index_select(0, batch.index_select(0, receiver))  # [E, 3, 3]
    a, b, c = shifts.to(positions.dtype).split(1, dim=1)  # [E, 1] each
    offset: Tensor = a * cells[:, 0] + b * cells[:, 1] + c * cells[:, 2]  # [E, 3]
    return vectors + offset


def edge_lengths(vectors: Tensor) -> Tensor:
    """Return the lengths [E] of vectors [E, 3]; their first and second derivatives are zero at zero vectors.

    Vectors too short for a finite second derivative (below 1e-9 Å in float32) count as zero.
    """
    x, y, z = vectors.unbind(-1)
    square = x * x + y * y + z * z
    zero = square <= torch.finfo(vectors.dtype).tiny ** 0.5
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def sort_edges(edge_index: Tensor, num_nodes: int, shifts: Tensor | None = None) -> tuple[Edges, Tensor]:
    """Sort edges by receiver, then sender, then shift.

    Shapes:
        edge_index: [2, E] int64, senders over receivers. shifts: [E, 3] or None.
        Returns the edges, and the permutation [E] that sorts their attributes in the same way.
    """
    sender, receiver = edge_index
    order = edge_order(sender, receiver, shifts, num_nodes)
    return select_edges(sender, receiver, shifts, order, num_nodes), order


def select_edges(sender: Tensor, receiver: Tensor, shifts: Tensor | None, order: Tensor, num_nodes: int) -> Edges:
    """Return the edges with the indices ``order``, in this order, which must be sorted by receiver."""
    receiver = receiver.index_select(0, order)
    shifts = None if shifts is None else shifts.index_select(0, order)
    return Edges(sender.index_select(0, order), receiver, shifts, row_pointers(receiver, num_nodes))


def edge_order(sender: Tensor, receiver: Tensor, shifts: Tensor | None, num_nodes: int) -> Tensor:
    """Return the stable permutation [E] that sorts edges by receiver, then sender, then shift [E, 3]."""
    key = receiver * num_nodes + sender
    if shifts is None or len(shifts) == 0:
        return torch.argsort(key, stable=True)
    whole = shifts.long()
    if not torch.compiler.is_compiling():  # data-dependent sizes would break the graph
        low, high = whole.aminmax(dim=0)
        sizes = (high - low + 1).tolist()
        if num_nodes**2 * math.prod(sizes) < 2**63:  # a single key suffices
            first, second, third = (whole - low).unbind(1)
            return torch.argsort(((key * sizes[0] + first) * sizes[1] + second) * sizes[2] + third, stable=True)
    order = torch.argsort(whole[:, 2], stable=True)
    for column in (whole[:, 1], whole[:, 0], key):
        order = order[torch.argsort(column[order], stable=True)]
    return order


def candidate_radius(positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float, lattice: Lattice | None) -> Tensor:
    """Return the search radius [G], in float64, at which rounding of ``edge_vectors`` cannot hide an edge."""
    reach = positions.new_zeros(len(ptr) - 1, dtype=torch.float64)
    reach = reach.scatter_reduce(0, batch, positions.detach().double().norm(dim=1), "amax") * 2 + cutoff
    if lattice is not None:  # the largest term of shift @ cell
        skew = lattice.vectors.norm(dim=2) * lattice.reciprocal.norm(dim=1)  # [G, 3]
        reach = reach * (1 + skew.sum(1))
    return cutoff + 16 * torch.finfo(positions.dtype).eps * reach


def no_edges(ptr: Tensor) -> Edges:
    """Return no edges, for graphs [G + 1] without nodes."""
    none = ptr.new_zeros(0)
    return Edges(none, none, None, ptr.new_zeros(1))


def full_edges(ptr: Tensor) -> Edges:
    """Return every ordered pair of different nodes of each graph.

    Shapes:
        ptr: [G + 1] int64, the first node of each graph.
    """
    num_nodes = int(ptr[-1])
    batch = batch_from_ptr(ptr, num_nodes)
    nodes = torch.arange(num_nodes, device=ptr.device)
    degree = (ptr[1:] - ptr[:-1])[batch] - 1  # [N]
    receiver = torch.repeat_interleave(nodes, degree)  # [E]
    pointers = row_pointers(receiver, num_nodes)
    rank = torch.arange(len(receiver), device=ptr.device) - pointers[receiver]  # [E] rank among the other nodes
    sender = ptr[batch[receiver]] + rank
    return Edges(sender + (sender >= receiver).long(), receiver, None, pointers)
