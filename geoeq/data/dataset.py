"""A data set: structures and targets in memory-mapped arrays, its splits, and loaders of batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Batch, Data

from geoeq.data.batches import make_batch
from geoeq.data.card import Card
from geoeq.data.edges import EdgeTable, count_edges, find_edges, stored_edge_counts, stored_edges
from geoeq.data.loader import BatchView, make_loader
from geoeq.data.ragged import Array, Ranges
from geoeq.data.sampler import BatchSampler, Limit, Share
from geoeq.data.splits import stored_split
from geoeq.data.store import open_store, read_index
from geoeq.errors import DataError, InputError, unknown_name
from geoeq.fields import FIELDS

__all__ = ["Dataset"]

#: Larger data sets have their edges found batch by batch; those of smaller ones are kept.
_ATOMS_WITH_KEPT_EDGES = 5_000_000


class Dataset(torch.utils.data.Dataset[Data]):
    """G structures with N atoms altogether.

    Args:
        card: what is known about the data.
        arrays: "positions" [N, 3], "ptr" [G + 1], and where there are such: "numbers" [N], "cell" [G, 3, 3],
            "pbc" [G, 3], "node.NAME" [N, ..], "graph.NAME" [G, ..], "edge.NAME" (see EdgeTable) and "target.NAME"
            [G, ..] or [N, ..], in the units of geoeq.
        folder: the cache that the arrays are mapped from; None if they are only in memory.
        sample: these are only the records that come with geoeq.
        parts: the number of structures of each part, in their order, where the data set has such.
        notes: what the reader found, chose and left out, as sentences for the user.

    Attributes:
        positions: [N, 3], Å.
        ptr: [G + 1]; atoms ptr[g] to ptr[g + 1] belong to structure g.
        numbers: [N] atomic numbers; None for point sets.
        targets: field name -> values, in the unit of the field.
        parts: name -> number of structures, in their order; empty if the data set has no parts.
    """

    def __init__(
        self,
        card: Card,
        arrays: Mapping[str, Array],
        folder: Path | None = None,
        sample: bool = False,
        parts: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        # Plain views of the memory maps: they are sliced faster.
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self.card = card
        self.folder = folder
        self.sample = sample
        self.parts = dict(parts or {})
        self.notes = tuple(notes)
        self.positions = arrays["positions"]
        self.ptr = arrays["ptr"]
        self.numbers = arrays.get("numbers")
        self.targets = _named(arrays, "target.")
        numbers = {} if self.numbers is None else {"z": self.numbers}
        self._nodes = numbers | {"pos": self.positions} | _named(arrays, "node.")
        self._graphs = _named(arrays, "graph.")
        self._graphs |= {name: array for name, array in arrays.items() if name in ("cell", "pbc")}
        edges = _named(arrays, "edge.")
        self._edges: dict[float | None, EdgeTable] = {None: EdgeTable(**edges)} if edges else {}

    @classmethod
    def open(cls, card: Card, folder: Path, sample: bool = False, verify: bool = False) -> Dataset:
        """The data set whose cache is ``folder``; with ``verify`` every checksum is compared."""
        arrays, details = open_store(folder, verify)
        return cls(card, arrays, folder, sample, details.get("parts"), details.get("notes", ()))

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.folder is None:
            return super().__reduce__()
        # A memory map is pickled as a copy of all it maps; a worker opens the cache itself instead.
        return Dataset.open, (self.card, self.folder, self.sample)

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __getitem__(self, index: int) -> Data:
        return self.batch([index])[0]

    def __iter__(self) -> Iterator[Data]:
        return (self[place] for place in range(len(self)))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The structures at ``indices`` as one batch, without edges."""
        return self.batch(indices)

    def target_names(self, names: Sequence[str] | None = None) -> list[str]:
        """``names``, or all targets if it is None.

        Raises:
            DataError: the data set has no such target.
        """
        for name in names or []:
            if name not in self.targets:
                raise DataError(f"{self.card.name}: {unknown_name('target', name, self.targets)}")
        return list(self.targets if names is None else names)

    def batch(
        self,
        indices: Sequence[int] | NDArray[np.int64],
        *,
        cutoff: float | None = None,
        targets: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Batch:
        """The structures at ``indices`` as one batch, with their places as ``place`` [G].

        Args:
            indices: places in the data set; negative ones count from the end.
            cutoff: with the edges shorter than this, Å; None for those that belong to the data, if there are any.
            targets: the targets to include; None for all.
            dtype: of everything that is not a whole number.

        Raises:
            InputError: an index is outside the data set, or there is none.
        """
        places = self._places(indices)
        ranges = Ranges.of(places, self.ptr)
        nodes = {name: _tensor(ranges.take(array), dtype) for name, array in self._nodes.items()}
        graphs: dict[str, Tensor] = {name: _tensor(array[places], dtype) for name, array in self._graphs.items()}
        for name in self.target_names(targets):
            if FIELDS[name].level == "node":
                nodes[name] = _tensor(ranges.take(self.targets[name]), dtype)
            else:
                graphs[name] = _tensor(self.targets[name][places], dtype)
        graphs["structure_id"] = torch.from_numpy(places)
        ptr = torch.from_numpy(ranges.pointers)
        if cutoff is not None:
            graphs["edge_cutoff"] = torch.full((len(places),), cutoff, dtype=dtype)
        if cutoff in self._edges:
            edges, edge_ptr = self._edges[cutoff].gather(places, ranges.pointers, dtype)
        elif cutoff is None:
            return make_batch(nodes, graphs, ptr)
        else:
            table = self._find(places, ranges, cutoff)
            edges, edge_ptr = table.gather(np.arange(len(places)), ranges.pointers, dtype)
        return make_batch(nodes, graphs, ptr, edges, edge_ptr)

    def free_atoms(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Which atoms of the structures at ``indices`` a relaxation may move, [N]; None if the data do not say.

        Raises:
            InputError: an index is outside the data set, or there is none.
        """
        if "fixed" not in self._nodes:
            return None
        return ~Ranges.of(self._places(indices), self.ptr).take(self._nodes["fixed"]).astype(bool)

    def cells(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """The cells of the structures at ``indices``, [G, 3, 3] Å.

        Raises:
            DataError: the data set has no cells.
            InputError: an index is outside the data set, or there is none.
        """
        if "cell" not in self._graphs:
            raise DataError(f"{self.card.name}: its structures have no cells.")
        return np.asarray(self._graphs["cell"][self._places(indices)], dtype=np.float64)

    def _find(self, places: Array, ranges: Ranges, cutoff: float) -> EdgeTable:
        cell, pbc = (self._graphs[name][places] if name in self._graphs else None for name in ("cell", "pbc"))
        return find_edges(ranges.take(self.positions), ranges.pointers, cutoff, cell, pbc)

    def keep_edges(self, cutoff: float) -> None:
        """Find the edges shorter than ``cutoff`` of all structures now; batches then only gather them.

        They are kept in the cache if there is one, else in memory.
        """
        if cutoff in self._edges:
            return
        find = partial(find_edges, self.positions, self.ptr, cutoff, self._graphs.get("cell"), self._graphs.get("pbc"))
        self._edges[cutoff] = find() if self.folder is None else stored_edges(self.folder, cutoff, find)

    def edge_counts(self, cutoff: float | None) -> NDArray[np.int64]:
        """The number of edges of each structure, [G]; they are counted once, and kept in the cache if there is one.

        Args:
            cutoff: of edges shorter than this, Å; None for those that belong to the data.

        Raises:
            DataError: no edges belong to the data.
        """
        if cutoff in self._edges:
            return np.diff(self._edges[cutoff].ptr)
        if cutoff is None:
            raise DataError(f"{self.card.name}: no edges belong to the data, and without a cutoff none are found.")
        cell, pbc = self._graphs.get("cell"), self._graphs.get("pbc")
        count = partial(count_edges, self.positions, self.ptr, cutoff, cell, pbc)
        return count() if self.folder is None else stored_edge_counts(self.folder, cutoff, count)

    def _places(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        places = np.array(indices, dtype=np.int64).reshape(-1)
        if len(places) == 0:
            raise InputError(f"{self.card.name}: a batch of no structures was asked for.")
        outside = (places < -len(self)) | (places >= len(self))
        if outside.any():
            raise InputError(
                f"{self.card.name}: there is no structure {places[outside][0]}; they are numbered 0 to {len(self) - 1}."
            )
        return np.where(places < 0, places + len(self), places)

    def split(self, name: str | None = None) -> dict[str, NDArray[np.int64]]:
        """The places of "train", "valid" and "test".

        Of a sample the same method is used, with sizes in proportion.

        Args:
            name: one of the splits of the card; its default if None.

        Raises:
            DataError: there is no such split, or the indices are not those that the card or the cache has.
        """
        name = name or self.card.default_split
        if name not in self.card.splits:
            raise DataError(f"{self.card.name}: {unknown_name('split', name, self.card.splits)}")
        folder = self.folder and self.folder.with_name(f"{self.folder.name}-split-{name}")
        where = f"{self.card.name}: split '{name}'"
        return stored_split(self.card.splits[name], len(self), self.sample, folder, where, self.parts, self._places_of)

    def _places_of(self) -> dict[str, NDArray[np.int64]]:
        """The records of each file or part, and of each list that came with the data."""
        details = {} if self.folder is None else read_index(self.folder)["details"]
        counts = details.get("graphs", self.parts)
        ends = np.cumsum(list(counts.values()), dtype=np.int64)
        places = {name: np.arange(end - counts[name], end, dtype=np.int64) for name, end in zip(counts, ends)}
        for name, listed in details.get("lists", {}).items():
            places[name] = np.array(listed, dtype=np.int64)
            if np.any((places[name] < 0) | (places[name] >= len(self))):
                raise DataError(f"{self.card.name}: the list '{name}' has places outside of the {len(self)} records.")
        return places

    def loader(
        self,
        indices: Sequence[int] | NDArray[np.int64],
        batch_size: int | None = None,
        *,
        batch_atoms: int | None = None,
        batch_edges: int | None = None,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        cutoff: float | None = None,
        targets: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
        drop_last: bool = False,
        workers: int = 0,
        ahead: bool = False,
        share: Share | None = None,
    ) -> DataLoader[Batch]:
        """Batches of the structures at ``indices``, in an order that depends only on (seed, epoch).

        Args:
            indices: such as one part of ``split()``.
            batch_size: structures in a batch.
            batch_atoms: in place of it, the largest number of atoms in a batch.
            batch_edges: in place of it, the largest number of edges in a batch.
            shuffle: a new order each epoch; ``loader.sampler.set_epoch(epoch)`` chooses it.
            seed: of the order.
            epoch: the epoch to begin with.
            cutoff: with the edges shorter than this, Å; None for those that belong to the data, if there are any.
            targets: the targets to include; None for all.
            dtype: of everything that is not a whole number.
            drop_last: leave out the last batch if it is smaller than the others.
            workers: processes that read ahead.
            ahead: where there are no workers, make the next batch in a thread while one is used.
            share: the batches of one of several processes; None for all of them.

        Raises:
            DataError: there is no such target, or there are no edges to count.
            InputError: an index is outside the data set, the batch size is not positive or not told in one of the
                three ways, or a structure is larger than a batch may be.
        """
        if cutoff is not None and len(self.positions) <= _ATOMS_WITH_KEPT_EDGES:
            self.keep_edges(cutoff)
        limit = self._limit(batch_size, batch_atoms, batch_edges, cutoff)
        view = BatchView(self, cutoff=cutoff, targets=targets, dtype=dtype)
        sampler = BatchSampler(
            self._places(indices), limit, shuffle=shuffle, seed=seed, epoch=epoch, drop_last=drop_last, share=share
        )
        return make_loader(view, sampler, workers=workers, ahead=ahead)

    def _limit(self, graphs: int | None, atoms: int | None, edges: int | None, cutoff: float | None) -> Limit:
        told = {"graphs": graphs, "atoms": atoms, "edges": edges}
        given = {unit: largest for unit, largest in told.items() if largest is not None}
        if len(given) != 1:
            raise InputError("The size of a batch is told by one of batch_size, batch_atoms and batch_edges.")
        unit, largest = next(iter(given.items()))
        if unit == "graphs":
            return Limit(largest)
        return Limit(largest, unit, np.diff(self.ptr) if unit == "atoms" else self.edge_counts(cutoff))


def _named(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _tensor(array: Array, dtype: torch.dtype) -> Tensor:
    """A tensor of ``dtype`` if the array holds real numbers, bool if it holds those, else int64."""
    tensor = torch.from_numpy(array)
    if array.dtype.kind == "f":
        return tensor.to(dtype)
    return tensor if array.dtype.kind == "b" else tensor.to(torch.int64)
