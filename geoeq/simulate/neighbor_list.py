"""The edges of one structure that moves: found a little beyond the cutoff, and anew only when they must be."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from geoeq.errors import InputError
from geoeq.geometry.neighbors import Edges, edge_lengths, edge_vectors, radius_edges, select_edges

__all__ = ["NeighborList"]


@dataclass(frozen=True)
class _Found:
    """The structure for which edges were found, and these, out to the cutoff and the skin."""

    positions: Tensor
    cell: Tensor | None
    pbc: Tensor | None
    edges: Edges


class NeighborList:
    """Edges shorter than a cutoff, for one structure at a time: those of ``geoeq.geometry.neighbors.radius_edges``.

    Edges are found out to the cutoff and a skin. They hold while no pair that was left out can have come within
    the cutoff: where F takes the old cell to the new one and u_i is what atom i has moved beyond that, while
    ``σ_min(F) (cutoff + skin) - 2 max |u_i| >= cutoff``. So cells may change and atoms cross the boundary; an atom that
    is put back into the cell has moved far, and edges are found anew.

    Args:
        cutoff: in Å.
        skin: in Å; 0 finds the edges each time.

    Attributes:
        rebuilds: how often edges were found.
        calls: how often they were asked for.

    Raises:
        InputError: the skin is negative or not finite.
    """

    def __init__(self, cutoff: float, skin: float = 0.5) -> None:
        if not 0 <= skin < float("inf"):
            raise InputError(f"The skin is {skin}; it must be a length of 0 or more, in Å.")
        self.cutoff, self.skin = cutoff, skin
        self.rebuilds = self.calls = 0
        self._found: _Found | None = None

    @torch.no_grad()
    def edges(self, positions: Tensor, cell: Tensor | None = None, pbc: Tensor | None = None) -> Edges:
        """The edges of the structure as it is now.

        Shapes:
            positions: [N, 3] Å. cell: [1, 3, 3] Å. pbc: [1, 3] bool.

        Raises:
            InputError: as ``radius_edges``.
        """
        self.calls += 1
        if self._found is None or not self._holds(self._found, positions, cell, pbc):
            self.rebuilds += 1
            ptr = torch.tensor([0, len(positions)], device=positions.device)
            edges = radius_edges(positions, ptr, self.cutoff + self.skin, cell, pbc)
            self._found = _Found(positions, cell, pbc, edges)
        edges = self._found.edges
        if self.skin == 0:
            return edges
        batch = edges.sender.new_zeros(len(positions))
        vectors = edge_vectors(positions, edges.sender, edges.receiver, edges.shifts, cell, batch)
        inside = (edge_lengths(vectors) < self.cutoff).nonzero().squeeze(-1)
        return select_edges(edges.sender, edges.receiver, edges.shifts, inside, len(positions))

    def _holds(self, found: _Found, positions: Tensor, cell: Tensor | None, pbc: Tensor | None) -> bool:
        if self.skin == 0 or found.positions.shape != positions.shape or found.positions.dtype != positions.dtype:
            return False
        if (found.cell is None) != (cell is None):
            return False
        before, least = found.positions, 1.0
        if cell is not None and pbc is not None and found.cell is not None and found.pbc is not None:
            if not torch.equal(found.pbc, pbc):
                return False
            if not torch.equal(found.cell, cell):
                change = torch.linalg.solve(_complete(found.cell[0], pbc[0]), _complete(cell[0], pbc[0]))
                before, least = before @ change, float(torch.linalg.matrix_norm(change, ord=-2))
        moved = float((positions - before).square().sum(-1).max().sqrt()) if len(positions) else 0.0
        return least * (self.cutoff + self.skin) - 2 * moved >= self.cutoff


def _complete(cell: Tensor, pbc: Tensor) -> Tensor:
    """The periodic vectors of a cell [3, 3], and orthonormal ones across them in the open directions."""
    periodic = cell[pbc]
    across = torch.linalg.svd(periodic, full_matrices=True).Vh[len(periodic) :] if len(periodic) else torch.eye(3)
    whole = cell.clone()
    whole[~pbc] = across.to(cell)
    return whole
