"""Batches for training, prepared while they are needed or ahead of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from geoeq.data.ragged import Array
from geoeq.data.sampler import BatchSampler, Portion

__all__ = ["BatchView", "Structures", "make_loader"]


class Structures(Protocol):
    """Structures from which batches are made, such as a ``geoeq.data.Dataset``.

    Attributes:
        ptr: [G + 1], row pointers of the atoms.
    """

    ptr: Array

    def __len__(self) -> int: ...

    def target_names(self, names: Sequence[str] | None = None) -> list[str]:
        """Return ``names``, or all targets if it is None."""
        ...

    def batch(
        self,
        indices: Sequence[int] | NDArray[np.int64],
        *,
        cutoff: float | None = None,
        targets: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Batch:
        """Return the structures at ``indices`` as one batch."""
        ...

    def free_atoms(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return which atoms of the structures at ``indices`` are free, [N]; None if this is unknown."""
        ...


class BatchView(torch.utils.data.Dataset[Batch]):
    """A data set as a loader indexes it: by portions of a sampler, each of which gives one batch.

    A batch that is only a part of a step has ``whole_step`` [1, 4]: the numbers of graphs, atoms and free atoms of the
    step, and whether the batch counts.

    Args:
        dataset: the structures.
        cutoff: cutoff radius in Å of the edges that are added; None for no edges.
        targets: names of the targets to include; None for all.
        dtype: data type of real numbers.
    """

    def __init__(
        self,
        dataset: Structures,
        *,
        cutoff: float | None = None,
        targets: Sequence[str] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.dataset = dataset
        self.cutoff = cutoff
        self.targets = dataset.target_names(targets)
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, portion: Portion) -> Batch:
        batch = self.dataset.batch(portion.indices, cutoff=self.cutoff, targets=self.targets, dtype=self.dtype)
        if portion.step is not None:
            step, ptr = np.array(portion.step), self.dataset.ptr
            atoms = int((ptr[step + 1] - ptr[step]).sum())
            free = self.dataset.free_atoms(portion.step)
            whole = [len(portion.step), atoms, atoms if free is None else int(free.sum()), int(portion.counted)]
            batch.whole_step = torch.tensor([whole])  # [1, 4]
        return batch


def _identity(batch: Batch) -> Batch:
    return batch


class _AheadLoader(DataLoader[Batch]):
    """A loader whose next batch is made in a thread while the current one is used.

    The batches and their order are the same as without it. A batch that was made but not requested counts for nothing.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return _ahead(super().__iter__())  # draws from torch's generator: here, not in the thread


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    # Leaving the loop, or an error, leaves the block, which waits for the one batch that is being made.
    # One thread of torch only: more would take cores from the training.
    with ThreadPoolExecutor(1, "geoeq-batches", torch.set_num_threads, (1,)) as thread:
        upcoming = thread.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = thread.submit(next, batches, None)
            yield batch


def make_loader(view: BatchView, sampler: BatchSampler, *, workers: int = 0, ahead: bool = False) -> DataLoader[Batch]:
    """Return a torch DataLoader that yields PyG batches.

    Args:
        view: the structures.
        sampler: sampler of the batches.
        workers: number of processes that prepare batches.
        ahead: without workers, make the next batch in a thread while the current one is used.
    """
    kind = _AheadLoader if ahead and not workers else DataLoader
    # Without a batch size, the loader asks the view for whatever the sampler yields.
    return kind(view, batch_size=None, sampler=sampler, num_workers=workers, collate_fn=_identity)
