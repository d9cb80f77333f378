"""Edges sorted by receiver: the form in which every method returns them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.lattice import Lattice

__all__ = [
    "Edges",
    "batch_from_ptr",
    "candidate_radius",
    "edge_lengths",
    "edge_order",
    "edge_vectors",
    "full_edges",
    "row_pointers",
    "sort_edges",
]


class Edges(NamedTuple):
    """Directed edges, sorted by receiver, then sender, then shift.

    Shapes:
        sender: [E] int64, j. receiver: [E] int64, i.
        shifts: [E, 3] whole numbers in the dtype of the positions, or None where nothing is periodic;
            the edge vector is r_j - r_i + shift @ cell.
        row_pointers: [N + 1] int64; the edges into node i are row_pointers[i] to row_pointers[i + 1].
    """

    sender: Tensor
    receiver: Tensor
    shifts: Tensor | None
    row_pointers: Tensor


def batch_from_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    """The graph of each node, [N], from where graphs begin, [G + 1]."""
    nodes = torch.arange(num_nodes, device=ptr.device)
    return torch.searchsorted(ptr[1:].contiguous(), nodes, right=True)


def row_pointers(receiver: Tensor, num_nodes: int) -> Tensor:
    """Where the edges of each node begin, [N + 1], in receivers [E] that are sorted."""
    nodes = torch.arange(num_nodes + 1, device=receiver.device)
    return torch.searchsorted(receiver.contiguous(), nodes)


def edge_vectors(
    positions: Tensor, sender: Tensor, receiver: Tensor, shifts: Tensor | None, cell: Tensor | None, batch: Tensor
) -> Tensor:
    """Vectors r_j - r_i + shift @ cell from receiver i to sender j, differentiable in positions and cell.

    The terms are added in a fixed order, so that each caller gets the same bits.

    Shapes:
        positions: [N, 3] Å. sender, receiver: [E]. shifts: [E, 3] or None. cell: [G, 3, 3] Å or None.
        batch: [N]. Returns [E, 3] Å.
    """
    vectors = positions[sender] - positions[receiver]  # [E, 3]
    if shifts is None or cell is None:
        return vectors
    terms = shifts.to(positions.dtype).unsqueeze(-1) * cell[batch[receiver]]  # [E, 3, 3]
    return vectors + (terms[:, 0] + terms[:, 1] + terms[:, 2])


def edge_lengths(vectors: Tensor) -> Tensor:
    """Lengths [E] of vectors [E, 3], whose first and second derivatives are zero at zero vectors.

    Vectors whose square is too small for a second derivative that is finite (below 1e-9 Å in float32)
    count as zero.
    """
    x, y, z = vectors.unbind(-1)
    square = x * x + y * y + z * z
    zero = square <= torch.finfo(vectors.dtype).tiny ** 0.5
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def sort_edges(edge_index: Tensor, num_nodes: int, shifts: Tensor | None = None) -> tuple[Edges, Tensor]:
    """Sort given edges by receiver, then sender, then shift.

    Shapes:
        edge_index: [2, E] int64, senders over receivers. shifts: [E, 3] or None.
        Returns the edges, and the order [E] that sorts attributes of the edges in the same way.
    """
    sender, receiver = edge_index
    order = edge_order(sender, receiver, shifts, num_nodes)
    sender, receiver = sender[order], receiver[order]
    shifts = None if shifts is None else shifts[order]
    return Edges(sender, receiver, shifts, row_pointers(receiver, num_nodes)), order


def edge_order(sender: Tensor, receiver: Tensor, shifts: Tensor | None, num_nodes: int) -> Tensor:
    """The order [E] that sorts edges by receiver, then sender, then shift [E, 3]; stable."""
    key = receiver * num_nodes + sender
    if shifts is None or len(shifts) == 0:
        return torch.argsort(key, stable=True)
    whole = shifts.long()
    low = whole.amin(0)
    first, second, third = (whole - low).unbind(1)
    _, width, depth = (whole.amax(0) - low + 1).unbind()
    order = torch.argsort((first * width + second) * depth + third, stable=True)
    return order[torch.argsort(key[order], stable=True)]


def candidate_radius(positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float, lattice: Lattice | None) -> Tensor:
    """Radius [G] in float64 within which to look, so that rounding of ``edge_vectors`` hides no edge."""
    reach = positions.new_zeros(len(ptr) - 1, dtype=torch.float64)
    reach = reach.scatter_reduce(0, batch, positions.detach().double().norm(dim=1), "amax") * 2 + cutoff
    if lattice is not None:  # the largest term of shift @ cell
        skew = lattice.vectors.norm(dim=2) * lattice.reciprocal.norm(dim=1)  # [G, 3]
        reach = reach * (1 + skew.sum(1))
    return cutoff + 16 * torch.finfo(positions.dtype).eps * reach


def full_edges(ptr: Tensor) -> Edges:
    """Every ordered pair of different nodes of one graph.

    Shapes:
        ptr: [G + 1] int64, where graphs begin.
    """
    num_nodes = int(ptr[-1])
    batch = batch_from_ptr(ptr, num_nodes)
    nodes = torch.arange(num_nodes, device=ptr.device)
    degree = (ptr[1:] - ptr[:-1])[batch] - 1  # [N]
    receiver = torch.repeat_interleave(nodes, degree)  # [E]
    pointers = row_pointers(receiver, num_nodes)
    rank = torch.arange(len(receiver), device=ptr.device) - pointers[receiver]  # [E] which other node
    sender = ptr[batch[receiver]] + rank
    return Edges(sender + (sender >= receiver).long(), receiver, None, pointers)
