"""Neighbour list of one moving structure, with a Verlet skin."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoeq.errors import InputError
from geoeq.geometry.neighbors import Edges, edge_lengths, edge_vectors, radius_edges, select_edges

__all__ = ["NeighborList"]


@dataclass(frozen=True)
class _Built:
    """Edges out to cutoff and skin, and the structure for which they were built."""

    positions: Tensor
    cell: Tensor | None
    pbc: Tensor | None
    edges: Edges


class NeighborList:
    """Edges of one structure at a time, shorter than a cutoff, as ``geoeq.geometry.neighbors.radius_edges`` finds them.

    Edges are built out to cutoff plus skin and reused while no omitted pair can have come within the cutoff: if F maps
    the old cell to the new one and u_i is the displacement of atom i beyond that, while
    ``σ_min(F) (cutoff + skin) - 2 max |u_i| >= cutoff``. Cells may therefore change and atoms may cross the boundary;
    wrapping an atom back into the cell counts as a large displacement and triggers a rebuild.

    Args:
        cutoff: cutoff radius in Å.
        skin: Verlet skin in Å; 0 rebuilds the list at every call.

    Attributes:
        rebuilds: number of rebuilds.
        calls: number of calls.

    Raises:
        InputError: the skin is negative or not finite.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        if not 0 <= skin < float("inf"):
            raise InputError(f"The skin is {skin}; it must be a length of 0 or more, in Å.")
        self.cutoff, self.skin = cutoff, skin
        self.rebuilds = self.calls = 0
        self._built: _Built | None = None

    @torch.no_grad()
    def edges(self, positions: Tensor, cell: Tensor | None = None, pbc: Tensor | None = None) -> Edges:
        """Return the edges of the structure in its current state.

        Shapes:
            positions: [N, 3] Å. cell: [1, 3, 3] Å. pbc: [1, 3] bool.

        Raises:
            InputError: as ``radius_edges``.
        """
        self.calls += 1
        if self._built is None or not self._holds(self._built, positions, cell, pbc):
            self.rebuilds += 1
            ptr = torch.tensor([0, len(positions)], device=positions.device)
            edges = radius_edges(positions, ptr, self.cutoff + self.skin, cell, pbc)
            self._built = _Built(positions, cell, pbc, edges)
        edges = self._built.edges
        if self.skin == 0:
            return edges
        batch = edges.sender.new_zeros(len(positions))
        vectors = edge_vectors(positions, edges.sender, edges.receiver, edges.shifts, cell, batch)
        inside = (edge_lengths(vectors) < self.cutoff).nonzero().squeeze(-1)
        return select_edges(edges.sender, edges.receiver, edges.shifts, inside, len(positions))

    def _holds(self, built: _Built, positions: Tensor, cell: Tensor | None, pbc: Tensor | None) -> bool:
        if self.skin == 0 or built.positions.shape != positions.shape or built.positions.dtype != positions.dtype:
            return False
        if (built.cell is None) != (cell is None):
            return False
        before, contraction = built.positions, 1.0
        if cell is not None and pbc is not None and built.cell is not None and built.pbc is not None:
            if not torch.equal(built.pbc, pbc):
                return False
            if not torch.equal(built.cell, cell):
                change = torch.linalg.solve(_complete(built.cell[0], pbc[0]), _complete(cell[0], pbc[0]))
                before, contraction = before @ change, float(torch.linalg.matrix_norm(change, ord=-2))
        moved = float((positions - before).square().sum(-1).max().sqrt()) if len(positions) else 0.0
        return contraction * (self.cutoff + self.skin) - 2 * moved >= self.cutoff


def _complete(cell: Tensor, pbc: Tensor) -> Tensor:
    """Complete the periodic vectors of a cell [3, 3] by orthonormal ones in the open directions."""
    periodic = cell[pbc]
    across = torch.linalg.svd(periodic, full_matrices=True).Vh[len(periodic) :] if len(periodic) else torch.eye(3)
    whole = cell.clone()
    whole[~pbc] = across.to(cell)
    return whole
