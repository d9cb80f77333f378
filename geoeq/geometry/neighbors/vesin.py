"""Neighbour search by vesin's cell lists, for structures with so many atoms that testing all pairs is slower."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from geoeq.geometry.lattice import Lattice
from geoeq.geometry.neighbors.edges import candidate_radius, edge_order
from geoeq.geometry.neighbors.limits import check_extents, image_ranges

__all__ = ["vesin_pairs"]


def vesin_pairs(
    positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float, lattice: Lattice | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return sorted senders, receivers and shifts of all pairs closer than the cutoff, and of few others.

    Raises:
        ExtentError: a graph is too large, or its cell too small, for the cutoff.
    """
    import vesin

    check_extents(positions, batch, len(ptr) - 1, cutoff, lattice)
    if lattice is not None:
        image_ranges(lattice, cutoff)
    radius = float(candidate_radius(positions, ptr, batch, cutoff, lattice).max()) if len(ptr) > 1 else cutoff
    search = vesin.NeighborList(cutoff=radius, full_list=True, n_threads=torch.get_num_threads())
    points = positions.detach().cpu().double()
    box = torch.zeros(len(ptr) - 1, 3, 3, dtype=torch.float64) if lattice is None else lattice.vectors.cpu()
    periodic = (box != 0).any(2).numpy()
    pairs, shifts = [ptr.new_empty(0, 2, device="cpu")], [torch.empty(0, 3, dtype=torch.int32)]
    starts = ptr.tolist()
    for graph, (start, stop) in enumerate(itertools.pairwise(starts)):
        indices, shift = search.compute(points[start:stop].numpy(), box[graph].numpy(), periodic[graph], "PS")
        pairs.append(torch.from_numpy(indices.astype("int64")) + start)
        shifts.append(torch.from_numpy(shift))
    receiver, sender = torch.cat(pairs).unbind(1)
    shift = None if lattice is None else torch.cat(shifts)
    order = edge_order(sender, receiver, shift, len(positions))
    device, dtype = positions.device, positions.dtype
    return (
        sender.index_select(0, order).to(device),
        receiver.index_select(0, order).to(device),
        None if shift is None else shift.index_select(0, order).to(device, dtype),
    )
