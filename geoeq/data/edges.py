"""Edges of many structures, stored as two small integers per edge and gathered for a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoeq.data.ragged import Array, Ranges
from geoeq.data.store import INDEX, open_store, read_index, write_store
from geoeq.geometry.neighbors import radius_edges

__all__ = ["EdgeTable", "count_edges", "find_edges", "stored_edge_counts", "stored_edges"]

#: Version of the arrays of an EdgeTable: edges stored by another version are computed again.
_LAYOUT = 2

#: Number of atoms whose edges are computed at once.
_CHUNK_ATOMS = 4096


@dataclass(frozen=True)
class EdgeTable:
    """The edges of G structures, those of each sorted by receiver.

    Attributes:
        ptr: [G + 1]; edges ptr[g] to ptr[g + 1] belong to structure g.
        pairs: [E, 2], sender and receiver, counted from the first atom of the structure.
        shifts: [E, 3], numbers of cells between the two; None if nothing is periodic.
    """

    ptr: Array
    pairs: Array
    shifts: Array | None = None

    def arrays(self) -> dict[str, Array]:
        """Return the arrays by name, as a cache stores them."""
        arrays = {"ptr": self.ptr, "pairs": self.pairs}
        return arrays if self.shifts is None else arrays | {"shifts": self.shifts}

    @classmethod
    def from_local(cls, sender: Array, receiver: Array, counts: Array, shifts: Array | None = None) -> EdgeTable:
        """Build a table from atom indices within each structure; structure g has ``counts[g]`` edges."""
        pairs = np.stack([sender, receiver], axis=1)
        ptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return cls(ptr, pairs.astype(np.min_scalar_type(int(pairs.max(initial=0)))), shifts)

    def gather(
        self, indices: NDArray[np.int64], node_ptr: NDArray[np.int64], dtype: torch.dtype
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the edges of the structures ``indices``, numbered within their batch.

        Shapes:
            indices: [G]. node_ptr: [G + 1], row pointers of the nodes of the batch. Returns the attributes
            ``edge_index`` [2, E] and, if periodic, ``edge_shifts`` [E, 3], and the row pointers [G + 1] of the edges.
        """
        ranges = Ranges.of(indices, self.ptr)
        first = np.repeat(node_ptr[:-1], np.diff(ranges.pointers))  # [E]
        edge_index = np.empty((2, len(first)), dtype=np.int64)
        np.add(ranges.take(self.pairs).T, first, out=edge_index)
        attributes = {"edge_index": torch.from_numpy(edge_index)}
        if self.shifts is not None:
            attributes["edge_shifts"] = torch.from_numpy(ranges.take(self.shifts)).to(dtype)
        return attributes, torch.from_numpy(ranges.pointers)


def find_edges(positions: Array, ptr: Array, cutoff: float, cell: Array | None, pbc: Array | None) -> EdgeTable:
    """Compute all edges shorter than ``cutoff`` of all structures.

    Shapes:
        positions: [N, 3] Å. ptr: [G + 1]. cell: [G, 3, 3] Å. pbc: [G, 3].
    """
    tables = list(_tables(positions, ptr, cutoff, cell, pbc))
    counts = np.concatenate([np.diff(table.ptr) for table in tables])
    shifts = None if cell is None else np.concatenate([table.shifts for table in tables if table.shifts is not None])
    sender, receiver = np.concatenate([table.pairs for table in tables]).T
    return EdgeTable.from_local(sender, receiver, counts, shifts)


def count_edges(
    positions: Array, ptr: Array, cutoff: float, cell: Array | None, pbc: Array | None
) -> NDArray[np.int64]:
    """Count the edges of ``find_edges`` in each structure, [G], without storing them."""
    counts = [np.diff(table.ptr) for table in _tables(positions, ptr, cutoff, cell, pbc)]
    return np.concatenate([np.zeros(0, np.int64), *counts])


def stored_edges(data: Path, cutoff: float, find: Callable[[], EdgeTable]) -> EdgeTable:
    """Return the edges stored beside the cache ``data``; if there are none, call ``find`` and store its result.

    Raises:
        DataError: a stored file is missing, truncated or altered.
    """
    return EdgeTable(**_stored(data, "edges", cutoff, lambda: find().arrays()))


def stored_edge_counts(data: Path, cutoff: float, count: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return the numbers of edges stored beside the cache ``data``, [G]; if there are none, call ``count``."""
    return _stored(data, "edge-counts", cutoff, lambda: {"counts": count()})["counts"]


def _stored(data: Path, kind: str, cutoff: float, compute: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    folder = data.with_name(f"{data.name}-{kind}-{cutoff!r}")
    belongs = {"layout": _LAYOUT, "cutoff": cutoff, "positions": read_index(data)["arrays"]["positions"]["sha256"]}
    if (folder / INDEX).exists():
        arrays, details = open_store(folder)
        if details == belongs:
            return {name: np.asarray(array) for name, array in arrays.items()}
    computed = compute()
    write_store(folder, computed, belongs)
    return computed


def _tables(positions: Array, ptr: Array, cutoff: float, cell: Array | None, pbc: Array | None) -> Iterator[EdgeTable]:
    start = 0
    while start < len(ptr) - 1:
        end = max(int(np.searchsorted(ptr, ptr[start] + _CHUNK_ATOMS, side="right")) - 1, start + 1)
        yield _find(positions, ptr, cutoff, cell, pbc, slice(start, end))
        start = end


def _find(
    positions: Array, ptr: Array, cutoff: float, cell: Array | None, pbc: Array | None, graphs: slice
) -> EdgeTable:
    pointers = np.asarray(ptr[graphs.start : graphs.stop + 1]) - ptr[graphs.start]
    atoms = np.array(positions[ptr[graphs.start] : ptr[graphs.stop]], dtype=np.float64)
    edges = radius_edges(
        torch.from_numpy(atoms),
        torch.from_numpy(pointers),
        cutoff,
        None if cell is None else torch.from_numpy(np.array(cell[graphs], dtype=np.float64)),
        None if pbc is None else torch.from_numpy(np.array(pbc[graphs])),
    )
    receiver = edges.receiver.numpy()
    counts = np.diff(np.searchsorted(receiver, pointers))
    first = np.repeat(pointers[:-1], counts)
    shifts = None
    if cell is not None:
        shifts = np.zeros((len(receiver), 3), np.float32) if edges.shifts is None else edges.shifts.numpy()
    return EdgeTable.from_local(edges.sender.numpy() - first, receiver - first, counts, shifts)
