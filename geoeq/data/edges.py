"""Edges of many structures, kept as two small whole numbers an edge, and gathered for a batch."""

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

#: Of the arrays of an EdgeTable: edges that another version kept are found again.
_LAYOUT = 2

#: Atoms of the structures whose edges are looked for in one go.
_CHUNK_ATOMS = 4096


@dataclass(frozen=True)
class EdgeTable:
    """The edges of G structures, those of each sorted by receiver.

    Attributes:
        ptr: [G + 1]; edges ptr[g] to ptr[g + 1] belong to structure g.
        pairs: [E, 2], sender and receiver, counted from the first atom of the structure.
        shifts: [E, 3] cells between the two; None if nothing is periodic.
    """

    ptr: Array
    pairs: Array
    shifts: Array | None = None

    def arrays(self) -> dict[str, Array]:
        """The arrays by name, as a cache keeps them."""
        arrays = {"ptr": self.ptr, "pairs": self.pairs}
        return arrays if self.shifts is None else arrays | {"shifts": self.shifts}

    @classmethod
    def from_local(cls, sender: Array, receiver: Array, counts: Array, shifts: Array | None = None) -> EdgeTable:
        """The table of edges that are counted within each structure, of which each has ``counts`` [G]."""
        pairs = np.stack([sender, receiver], axis=1)
        ptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return cls(ptr, pairs.astype(np.min_scalar_type(int(pairs.max(initial=0)))), shifts)

    def gather(
        self, places: NDArray[np.int64], node_ptr: NDArray[np.int64], dtype: torch.dtype
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The edges of the structures ``places``, numbered within their batch.

        Shapes:
            places: [G]. node_ptr: [G + 1], row pointers of the nodes of the batch. Returns the attributes
            ``edge_index`` [2, E] and, if periodic, ``edge_shifts`` [E, 3], and the row pointers [G + 1] of the edges.
        """
        ranges = Ranges.of(places, self.ptr)
        first = np.repeat(node_ptr[:-1], np.diff(ranges.pointers))  # [E]
        index = np.empty((2, len(first)), dtype=np.int64)
        np.add(ranges.take(self.pairs).T, first, out=index)
        found = {"edge_index": torch.from_numpy(index)}
        if self.shifts is not None:
            found["edge_shifts"] = torch.from_numpy(ranges.take(self.shifts)).to(dtype)
        return found, torch.from_numpy(ranges.pointers)


def find_edges(positions: Array, ptr: Array, cutoff: float, cell: Array | None, pbc: Array | None) -> EdgeTable:
    """All edges shorter than ``cutoff`` of all structures.

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
    """How many edges ``find_edges`` would find in each structure, [G], in the memory of some."""
    counts = [np.diff(table.ptr) for table in _tables(positions, ptr, cutoff, cell, pbc)]
    return np.concatenate([np.zeros(0, np.int64), *counts])


def stored_edges(data: Path, cutoff: float, find: Callable[[], EdgeTable]) -> EdgeTable:
    """The edges that were kept beside the cache ``data``, or those that ``find`` finds, which are kept there.

    Raises:
        DataError: a kept file is missing, truncated or altered.
    """
    return EdgeTable(**_stored(data, "edges", cutoff, lambda: find().arrays()))


def stored_edge_counts(data: Path, cutoff: float, count: Callable[[], NDArray[np.int64]]) -> NDArray[np.int64]:
    """As ``stored_edges``, of the numbers of edges alone, [G]."""
    return _stored(data, "edge-counts", cutoff, lambda: {"counts": count()})["counts"]


def _stored(data: Path, kind: str, cutoff: float, make: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    folder = data.with_name(f"{data.name}-{kind}-{cutoff!r}")
    belongs = {"layout": _LAYOUT, "cutoff": cutoff, "positions": read_index(data)["arrays"]["positions"]["sha256"]}
    if (folder / INDEX).exists():
        arrays, details = open_store(folder)
        if details == belongs:
            return {name: np.asarray(array) for name, array in arrays.items()}
    made = make()
    write_store(folder, made, belongs)
    return made


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
