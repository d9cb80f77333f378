"""The periodic part of a cell: its vectors, its reciprocal vectors, what is in it, and what is wrong with it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.errors import CellError

__all__ = [
    "Lattice",
    "cell_error",
    "cell_faults",
    "extents",
    "lattice",
    "to_cartesian",
    "to_fractional",
    "unchecked_lattice",
]

#: A cell is flat when its volume is below this part of the product of its edges.
FLATNESS = 1e-6


class Lattice(NamedTuple):
    """Many lattices, periodic in some directions or in none, in float64.

    A direction that is not periodic has a zero vector and a zero reciprocal vector, whatever its
    cell vector was: a fractional coordinate there is zero, and no image is ever taken.

    Shapes:
        vectors: [G, 3, 3] Å, rows are the vectors.
        reciprocal: [G, 3, 3] 1/Å, columns are the reciprocal vectors: fractional = positions @ reciprocal.
            Their lengths are one over the spacings of the lattice planes.
    """

    vectors: Tensor
    reciprocal: Tensor


def _gram(cell: Tensor, pbc: Tensor) -> tuple[Tensor, Tensor]:
    """Periodic vectors, and their dot products with a one in the open directions."""
    vectors = cell.detach().double() * pbc.unsqueeze(-1)  # [G, 3, 3]
    return vectors, vectors @ vectors.mT + torch.diag_embed((~pbc).double())


def cell_faults(cell: Tensor, pbc: Tensor) -> Tensor:
    """Which cells are zero, flat or not finite in their periodic directions.

    Shapes:
        cell: [G, 3, 3] Å. pbc: [G, 3] bool. Returns [G] bool.
    """
    _, gram = _gram(cell, pbc)
    size = gram.diagonal(dim1=-2, dim2=-1).prod(-1)  # [G] product of squared edges
    volume: Tensor = torch.linalg.det(gram)  # squared
    return ~(volume > FLATNESS**2 * size)


def lattice(cell: Tensor, pbc: Tensor) -> Lattice:
    """The lattices of many cells, of either handedness, any angles and any periodic directions.

    Shapes:
        cell: [G, 3, 3] Å. pbc: [G, 3] bool.

    Raises:
        CellError: a periodic direction has no vector, or the periodic vectors span no volume.
    """
    faults = cell_faults(cell, pbc)
    if bool(faults.any()):
        raise cell_error(cell, pbc, int(faults.nonzero()[0, 0]))
    return unchecked_lattice(cell, pbc)


def unchecked_lattice(cell: Tensor, pbc: Tensor) -> Lattice:
    """As ``lattice``, without waiting for the device; of a cell with faults the result means nothing."""
    vectors, gram = _gram(cell, pbc)
    return Lattice(vectors, vectors.mT @ torch.linalg.inv_ex(gram).inverse)


def cell_error(cell: Tensor, pbc: Tensor, graph: int) -> CellError:
    """What is wrong with the cell of one graph, and what would be right."""
    rows = cell[graph].detach().double()
    for direction, name in enumerate("abc"):
        if bool(pbc[graph, direction]) and not bool(rows[direction].abs().sum() > 0):
            return CellError(
                f"Graph {graph} is periodic along {name}, but that cell vector is {rows[direction].tolist()}. "
                f"Give the vector, or set pbc to False in that direction."
            )
    return CellError(
        f"Graph {graph}: the periodic vectors of its cell {rows.tolist()} span no volume. "
        f"Give linearly independent vectors, or set pbc to False where the structure is open."
    )


def to_fractional(positions: Tensor, batch: Tensor, lattice: Lattice) -> Tensor:
    """Fractional coordinates [N, 3] in float64 of positions [N, 3]; zero in open directions."""
    return torch.einsum("nx,nxk->nk", positions.detach().double(), lattice.reciprocal.index_select(0, batch))


def to_cartesian(fractions: Tensor, batch: Tensor, lattice: Lattice) -> Tensor:
    """The part of positions [N, 3] in float64 that fractional coordinates [N, 3] give."""
    return torch.einsum("nk,nkx->nx", fractions, lattice.vectors.index_select(0, batch))


def extents(positions: Tensor, batch: Tensor, num_graphs: int, lattice: Lattice | None) -> Tensor:
    """The largest extent [G] in Å of each graph along x, y or z, in float64.

    Where a graph is periodic, its cell counts, not how far its nodes have moved through the boundary.
    """
    outside = positions.detach().double()
    if lattice is not None:  # the part that no lattice vector brings back
        outside = outside - to_cartesian(to_fractional(positions, batch, lattice), batch, lattice)
    index = batch.unsqueeze(1).expand(-1, 3)
    blank = outside.new_zeros(num_graphs, 3)
    high = blank.scatter_reduce(0, index, outside, "amax", include_self=False)
    low = blank.scatter_reduce(0, index, outside, "amin", include_self=False)
    extent = (high - low).amax(1)
    if lattice is None:
        return extent
    return torch.maximum(extent, lattice.vectors.norm(dim=2).amax(1))
