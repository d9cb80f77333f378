"""Cell lists of vesin, for structures with so many atoms that trying all pairs is slower."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.errors import ExtentError
from geoeq.lattice import Lattice
from geoeq.neighbors.edges import candidate_radius, edge_order

__all__ = ["EXTENT_LIMIT", "extents", "vesin_pairs"]

#: Extent over cutoff above which vesin is not called: it would end the process at a few times this.
EXTENT_LIMIT = 1e4

#: Images of a cell within the cutoff above which vesin is not called: the memory would not suffice.
IMAGE_LIMIT = 1e6


def extents(positions: Tensor, batch: Tensor, num_graphs: int, lattice: Lattice | None) -> Tensor:
    """The largest extent [G] in Å of each graph along x, y or z, or of its periodic cell, in float64."""
    outside = positions.detach().double()
    if lattice is not None:  # the part that no lattice vector brings back
        fractions = torch.einsum("nx,nxk->nk", outside, lattice.reciprocal[batch])
        outside = outside - torch.einsum("nk,nkx->nx", fractions, lattice.vectors[batch])
    index = batch.unsqueeze(1).expand(-1, 3)
    blank = outside.new_zeros(num_graphs, 3)
    high = blank.scatter_reduce(0, index, outside, "amax", include_self=False)
    low = blank.scatter_reduce(0, index, outside, "amin", include_self=False)
    extent = (high - low).amax(1)
    if lattice is None:
        return extent
    return torch.maximum(extent, lattice.vectors.norm(dim=2).amax(1))


def vesin_pairs(
    positions: Tensor, ptr: Tensor, batch: Tensor, cutoff: float, lattice: Lattice | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Senders, receivers and shifts that contain all pairs closer than the cutoff, sorted, and few others.

    Raises:
        ExtentError: a graph is so large for the cutoff, or a cell so small, that vesin would end the process.
    """
    import vesin

    check_reach(positions, batch, len(ptr) - 1, cutoff, lattice)
    radius = float(candidate_radius(positions, ptr, batch, cutoff, lattice).max()) if len(ptr) > 1 else cutoff
    search = vesin.NeighborList(cutoff=radius, full_list=True, n_threads=torch.get_num_threads())
    points = positions.detach().cpu().double()
    box = torch.zeros(len(ptr) - 1, 3, 3, dtype=torch.float64) if lattice is None else lattice.vectors.cpu()
    periodic = (box != 0).any(2).numpy()
    pairs, shifts = [ptr.new_empty(0, 2, device="cpu")], [torch.empty(0, 3, dtype=torch.int32)]
    starts = ptr.tolist()
    for graph, (start, stop) in enumerate(zip(starts[:-1], starts[1:])):
        found, shift = search.compute(points[start:stop].numpy(), box[graph].numpy(), periodic[graph], "PS")
        pairs.append(torch.from_numpy(found.astype("int64")) + start)
        shifts.append(torch.from_numpy(shift))
    receiver, sender = torch.cat(pairs).unbind(1)
    shift = None if lattice is None else torch.cat(shifts)
    order = edge_order(sender, receiver, shift, len(positions))
    device, dtype = positions.device, positions.dtype
    return (
        sender[order].to(device),
        receiver[order].to(device),
        None if shift is None else shift[order].to(device, dtype),
    )


def check_reach(positions: Tensor, batch: Tensor, num_graphs: int, cutoff: float, lattice: Lattice | None) -> None:
    """Raise an ExtentError that names the graph for which vesin would run out of memory."""
    extent = extents(positions, batch, num_graphs, lattice)
    large = ~(extent <= EXTENT_LIMIT * cutoff)
    if bool(large.any()):
        graph = int(large.nonzero()[0, 0])
        raise ExtentError(
            f"Graph {graph} extends over {float(extent[graph]):.3g} Å, more than {EXTENT_LIMIT:.0e} times the cutoff "
            f"of {cutoff} Å. Check the unit of its positions (Å), remove atoms that flew away, or use method='brute'."
        )
    if lattice is None:
        return
    images = (2 * cutoff * lattice.reciprocal.norm(dim=1) + 1).prod(1)  # [G]
    if bool((images > IMAGE_LIMIT).any()):
        graph = int(images.argmax())
        raise ExtentError(
            f"A cutoff of {cutoff} Å reaches {float(images[graph]):.1e} images of the cell of graph {graph}. "
            f"Check that the cell and the cutoff have the same unit (Å)."
        )
