"""Lattices: periodic cell vectors, their reciprocals, fractional coordinates, extents and faults."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.errors import CellError

__all__ = [
    "Lattice",
    "cell_error",
    "cell_faults",
    "check_open",
    "extents",
    "lattice",
    "to_cartesian",
    "to_fractional",
    "unchecked_lattice",
]

#: A cell is flat if its volume is below this fraction of the product of its edges.
FLATNESS = 1e-6


def check_open(pbc: Tensor | None, reason: str) -> None:
    """Refuse periodic structures, except in compiled code, which cannot look.

    Args:
        pbc: [G, 3] bool, or None.
        reason: why, and what to use instead, as it follows "Graph 3 is periodic, ".

    Raises:
        CellError: a structure is periodic in some direction.
    """
    if pbc is None or torch.compiler.is_compiling():
        return
    periodic = pbc.reshape(-1, 3).any(1)
    if bool(periodic.any()):
        raise CellError(f"Graph {int(periodic.nonzero()[0, 0])} is periodic, {reason}")


class Lattice(NamedTuple):
    """G lattices, periodic in some directions or none, in float64.

    A non-periodic direction has a zero vector and a zero reciprocal vector, whatever its cell vector is; its fractional
    coordinate is zero, and it has no images. The lengths of the reciprocal vectors are one over the spacings of the
    lattice planes.

    Shapes:
        vectors: [G, 3, 3] Å, rows are the vectors.
        reciprocal: [G, 3, 3] 1/Å, columns are the reciprocal vectors: fractional = positions @ reciprocal.
    """

    vectors: Tensor
    reciprocal: Tensor


def _gram(cell: Tensor, pbc: Tensor) -> tuple[Tensor, Tensor]:
    """Return the periodic vectors, and their Gram matrix with ones for the open directions."""
    vectors = cell.detach().double() * pbc.unsqueeze(-1)  # [G, 3, 3]
    return vectors, vectors @ vectors.mT + torch.diag_embed((~pbc).double())


def cell_faults(cell: Tensor, pbc: Tensor) -> Tensor:
    """Return which cells are zero, flat or not finite in their periodic directions.

    Shapes:
        cell: [G, 3, 3] Å. pbc: [G, 3] bool. Returns [G] bool.
    """
    _, gram = _gram(cell, pbc)
    size = gram.diagonal(dim1=-2, dim2=-1).prod(-1)  # [G] product of squared edges
    volume: Tensor = torch.linalg.det(gram)  # squared
    return ~(volume > FLATNESS**2 * size)


def lattice(cell: Tensor, pbc: Tensor) -> Lattice:
    """Return the lattices of cells of either handedness, with any angles and periodic directions.

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
    """Return ``lattice`` without checks, which would wait for the device; results of faulty cells are meaningless."""
    vectors, gram = _gram(cell, pbc)
    return Lattice(vectors, vectors.mT @ torch.linalg.inv_ex(gram).inverse)


def cell_error(cell: Tensor, pbc: Tensor, graph: int) -> CellError:
    """Return the error that describes the faulty cell of one graph."""
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
    """Return the fractional coordinates [N, 3], in float64, of positions [N, 3]; zero in open directions."""
    return torch.einsum("nx,nxk->nk", positions.detach().double(), lattice.reciprocal.index_select(0, batch))


def to_cartesian(fractions: Tensor, batch: Tensor, lattice: Lattice) -> Tensor:
    """Return the Cartesian vectors [N, 3], in float64, of fractional coordinates [N, 3]."""
    return torch.einsum("nk,nkx->nx", fractions, lattice.vectors.index_select(0, batch))


def extents(positions: Tensor, batch: Tensor, num_graphs: int, lattice: Lattice | None) -> Tensor:
    """Return the largest extent [G] in Å of each graph along x, y or z, in float64.

    In periodic directions the cell counts, however far atoms have moved through the boundary.
    """
    outside = positions.detach().double()
    if lattice is not None:  # the component in open directions
        outside = outside - to_cartesian(to_fractional(positions, batch, lattice), batch, lattice)
    index = batch.unsqueeze(1).expand(-1, 3)
    blank = outside.new_zeros(num_graphs, 3)
    high = blank.scatter_reduce(0, index, outside, "amax", include_self=False)
    low = blank.scatter_reduce(0, index, outside, "amin", include_self=False)
    extent = (high - low).amax(1)
    if lattice is None:
        return extent
    return torch.maximum(extent, lattice.vectors.norm(dim=2).amax(1))
