"""A data set: structures and targets in memory-mapped arrays, with its splits and loaders."""

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

from geoeq.data.card import Card
from geoeq.data.edges import EdgeTable, count_edges, find_edges, stored_edge_counts, stored_edges
from geoeq.data.loader import BatchView, make_loader
from geoeq.data.ragged import Array, Ranges, make_batch, to_tensor
from geoeq.data.sampler import BatchSampler, Limit, Share
from geoeq.data.splits import indices_of_lists, stored_split
from geoeq.data.store import open_store, read_index
from geoeq.errors import DataError, InputError, unknown_name
from geoeq.fields import FIELDS

__all__ = ["Dataset"]

#: The edges of larger data sets are computed batch by batch; those of smaller ones are stored.
_ATOMS_WITH_STORED_EDGES = 5_000_000


class Dataset(torch.utils.data.Dataset[Data]):
    """G structures with N atoms in total.

    Args:
        card: card of the data set.
        arrays: "positions" [N, 3] and "ptr" [G + 1], and optionally "numbers" [N], "cell" [G, 3, 3], "pbc" [G, 3],
            "node.NAME" [N, ..], "graph.NAME" [G, ..], "edge.NAME" (see EdgeTable) and "target.NAME" [G, ..] or
            [N, ..], in the units of geoeq.
        folder: the cache from which the arrays are mapped; None if they are only in memory.
        sample: whether these are only the records that are shipped with geoeq.
        parts: number of structures of each part, in order, if the data set has parts.
        notes: remarks of the reader for the user, as sentences: what it detected, chose and left out.

    Attributes:
        positions: [N, 3], Å.
        ptr: [G + 1]; atoms ptr[g] to ptr[g + 1] belong to structure g.
        numbers: [N], atomic numbers; None for point sets.
        targets: field name -> values, in the unit of the field.
        pbc: [G, 3], whether each direction is periodic; None if nothing is.
        total_charge: [G] e, net charges, which are an input of models; None if the data have none.
        parts: name -> number of structures, in order; empty if the data set has no parts.
    """

    def __init__(
        self,
        card: Card,
        arrays: Mapping[str, Array],
        folder: str | Path | None = None,
        sample: bool = False,
        parts: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        # Plain views of the memory maps are faster to slice.
        arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self.card = card
        self.folder = None if folder is None else Path(folder)
        self.sample = sample
        self.parts = dict(parts or {})
        self.notes = tuple(notes)
        self.positions = arrays["positions"]
        self.ptr = arrays["ptr"]
        self.numbers = arrays.get("numbers")
        self.targets = _with_prefix(arrays, "target.")
        numbers = {} if self.numbers is None else {"z": self.numbers}
        self._nodes = numbers | {"pos": self.positions} | _with_prefix(arrays, "node.")
        self._graphs = _with_prefix(arrays, "graph.")
        self._graphs |= {name: array for name, array in arrays.items() if name in ("cell", "pbc")}
        self.pbc = self._graphs.get("pbc")
        self.total_charge = self._graphs.get("total_charge")
        edges = _with_prefix(arrays, "edge.")
        self._edges: dict[float | None, EdgeTable] = {None: EdgeTable(**edges)} if edges else {}

    @classmethod
    def open(cls, card: Card, folder: str | Path, sample: bool = False, verify: bool = False) -> Dataset:
        """Open the data set in the cache ``folder``; with ``verify`` every checksum is compared."""
        folder = Path(folder)
        arrays, details = open_store(folder, verify)
        return cls(card, arrays, folder, sample, details.get("parts"), details.get("notes", ()))

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.folder is None:
            return super().__reduce__()
        # Pickling a memory map copies its content; a worker opens the cache itself instead.
        return Dataset.open, (self.card, self.folder, self.sample)

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __getitem__(self, index: int) -> Data:
        return self.batch([index])[0]

    def __iter__(self) -> Iterator[Data]:
        return (self[index] for index in range(len(self)))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Return the structures at ``indices`` as one batch, without edges."""
        return self.batch(indices)

    def target_names(self, names: Sequence[str] | None = None) -> list[str]:
        """Return ``names``, or all targets if it is None.

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
        """Return the structures at ``indices`` as one batch, with their indices as ``structure_id`` [G].

        Args:
            indices: indices in the data set; negative ones count from the end.
            cutoff: cutoff radius in Å of the edges that are added; None for the edges stored in the data, if any.
            targets: names of the targets to include; None for all.
            dtype: data type of real numbers.

        Raises:
            InputError: an index is outside the data set, or ``indices`` is empty.
        """
        indices = self._check_indices(indices)
        ranges = Ranges.of(indices, self.ptr)
        nodes = {name: to_tensor(ranges.take(array), dtype) for name, array in self._nodes.items()}
        graphs: dict[str, Tensor] = {name: to_tensor(array[indices], dtype) for name, array in self._graphs.items()}
        for name in self.target_names(targets):
            if FIELDS[name].level == "node":
                nodes[name] = to_tensor(ranges.take(self.targets[name]), dtype)
            else:
                graphs[name] = to_tensor(self.targets[name][indices], dtype)
        graphs["structure_id"] = torch.from_numpy(indices)
        ptr = torch.from_numpy(ranges.pointers)
        if cutoff is not None:
            graphs["edge_cutoff"] = torch.full((len(indices),), cutoff, dtype=dtype)
        if cutoff in self._edges:
            edges, edge_ptr = self._edges[cutoff].gather(indices, ranges.pointers, dtype)
        elif cutoff is None:
            return make_batch(nodes, graphs, ptr)
        else:
            cell, pbc = (self._graphs[name][indices] if name in self._graphs else None for name in ("cell", "pbc"))
            table = find_edges(ranges.take(self.positions), ranges.pointers, cutoff, cell, pbc)
            edges, edge_ptr = table.gather(np.arange(len(indices)), ranges.pointers, dtype)
        return make_batch(nodes, graphs, ptr, edges, edge_ptr)

    def free_atoms(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return which atoms of the structures at ``indices`` a relaxation may move, [N]; None if this is unknown.

        Raises:
            InputError: an index is outside the data set, or ``indices`` is empty.
        """
        if "fixed" not in self._nodes:
            return None
        return ~Ranges.of(self._check_indices(indices), self.ptr).take(self._nodes["fixed"]).astype(bool)

    def cells(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the cells of the structures at ``indices``, [G, 3, 3] Å.

        Raises:
            DataError: the data set has no cells.
            InputError: an index is outside the data set, or ``indices`` is empty.
        """
        if "cell" not in self._graphs:
            raise DataError(f"{self.card.name}: its structures have no cells.")
        return np.asarray(self._graphs["cell"][self._check_indices(indices)], dtype=np.float64)

    def keep_edges(self, cutoff: float) -> None:
        """Compute the edges shorter than ``cutoff`` of all structures now, so that batches only gather them.

        The edges are stored in the cache if there is one, else in memory.
        """
        if cutoff in self._edges:
            return
        find = partial(find_edges, self.positions, self.ptr, cutoff, self._graphs.get("cell"), self.pbc)
        self._edges[cutoff] = find() if self.folder is None else stored_edges(self.folder, cutoff, find)

    def edge_counts(self, cutoff: float | None) -> NDArray[np.int64]:
        """Return the number of edges of each structure, [G]; it is computed once and stored in the cache, if any.

        Args:
            cutoff: cutoff radius of the edges in Å; None for the edges stored in the data.

        Raises:
            DataError: the data have no edges, and there is no cutoff.
        """
        if cutoff in self._edges:
            return np.diff(self._edges[cutoff].ptr)
        if cutoff is None:
            raise DataError(f"{self.card.name}: the data contain no edges; a cutoff is needed to compute them.")
        count = partial(count_edges, self.positions, self.ptr, cutoff, self._graphs.get("cell"), self.pbc)
        return count() if self.folder is None else stored_edge_counts(self.folder, cutoff, count)

    def _check_indices(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Return ``indices`` as an array without negative numbers."""
        array = np.array(indices, dtype=np.int64).reshape(-1)
        if len(array) == 0:
            raise InputError(f"{self.card.name}: a batch needs at least one structure.")
        outside = (array < -len(self)) | (array >= len(self))
        if outside.any():
            raise InputError(
                f"{self.card.name}: there is no structure {array[outside][0]}; they are numbered 0 to {len(self) - 1}."
            )
        return np.where(array < 0, array + len(self), array)

    def split(self, name: str | None = None) -> dict[str, NDArray[np.int64]]:
        """Return the indices of "train", "valid" and "test".

        A sample is divided by the same method, with proportional sizes.

        Args:
            name: name of a split of the card; the default split if None.

        Raises:
            DataError: the split does not exist, or its indices differ from those in the card or the cache.
        """
        name = name or self.card.default_split
        if name not in self.card.splits:
            raise DataError(f"{self.card.name}: {unknown_name('split', name, self.card.splits)}")
        folder = self.folder and self.folder.with_name(f"{self.folder.name}-split-{name}")
        where = f"{self.card.name}: split '{name}'"
        return stored_split(self.card.splits[name], len(self), self.sample, folder, where, self.parts, self._lists)

    def _lists(self) -> dict[str, NDArray[np.int64]]:
        """Return the indices of each file or part, and of each list that was published with the data."""
        details = {} if self.folder is None else read_index(self.folder)["details"]
        return indices_of_lists(details.get("graphs", self.parts), details.get("lists", {}), len(self), self.card.name)

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
        """Return a loader of batches of the structures at ``indices``, in an order that depends only on (seed, epoch).

        Specify the size of a batch by exactly one of ``batch_size``, ``batch_atoms`` and ``batch_edges``.

        Args:
            indices: indices of the structures, such as one part of ``split()``.
            batch_size: number of structures in a batch.
            batch_atoms: largest number of atoms in a batch.
            batch_edges: largest number of edges in a batch.
            shuffle: whether each epoch has another order; ``loader.sampler.set_epoch(epoch)`` chooses it.
            seed: random seed of the order.
            epoch: first epoch.
            cutoff: cutoff radius in Å of the edges that are added; None for the edges stored in the data, if any.
            targets: names of the targets to include; None for all.
            dtype: data type of real numbers.
            drop_last: whether to leave out the last batch if it is smaller than the others.
            workers: number of processes that prepare batches.
            ahead: without workers, make the next batch in a thread while the current one is used.
            share: the batches of one of several processes; None for all batches.

        Raises:
            DataError: a target does not exist, or there are no edges to count.
            InputError: an index is outside the data set, the batch size is not positive or not specified exactly once,
                or a structure is larger than a batch.
        """
        if cutoff is not None and len(self.positions) <= _ATOMS_WITH_STORED_EDGES:
            self.keep_edges(cutoff)
        sizes = {"graphs": batch_size, "atoms": batch_atoms, "edges": batch_edges}
        limit = Limit.of(sizes, lambda unit: np.diff(self.ptr) if unit == "atoms" else self.edge_counts(cutoff))
        view = BatchView(self, cutoff=cutoff, targets=targets, dtype=dtype)
        order: dict[str, Any] = {"shuffle": shuffle, "seed": seed, "epoch": epoch}
        sampler = BatchSampler(self._check_indices(indices), limit, **order, drop_last=drop_last, share=share)
        return make_loader(view, sampler, workers=workers, ahead=ahead)


def _with_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
