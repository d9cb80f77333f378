"""The periodic part of a cell: its vectors, its reciprocal vectors, and what is wrong with it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geoeq.errors import CellError

__all__ = ["Lattice", "cell_faults", "lattice"]

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
    return ~(torch.linalg.det(gram) > FLATNESS**2 * size)


def lattice(cell: Tensor, pbc: Tensor) -> Lattice:
    """The lattices of many cells, of either handedness, any angles and any periodic directions.

    Shapes:
        cell: [G, 3, 3] Å. pbc: [G, 3] bool.

    Raises:
        CellError: a periodic direction has no vector, or the periodic vectors span no volume.
    """
    faults = cell_faults(cell, pbc)
    if bool(faults.any()):
        raise CellError(describe_fault(cell, pbc, int(faults.nonzero()[0, 0])))
    vectors, gram = _gram(cell, pbc)
    return Lattice(vectors, vectors.mT @ torch.linalg.inv(gram))


def describe_fault(cell: Tensor, pbc: Tensor, graph: int) -> str:
    """What is wrong with the cell of one graph, and what would be right."""
    rows = cell[graph].detach().double()
    for direction, name in enumerate("abc"):
        if bool(pbc[graph, direction]) and not bool(rows[direction].abs().sum() > 0):
            return (
                f"Graph {graph} is periodic along {name}, but that cell vector is {rows[direction].tolist()}. "
                f"Give the vector, or set pbc to False in that direction."
            )
    return (
        f"Graph {graph}: the periodic vectors of its cell {rows.tolist()} span no volume. "
        f"Give linearly independent vectors, or set pbc to False where the structure is open."
    )
