"""Batches for training, with edges found on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from geoeq.data.sampler import BatchSampler, Portion

if TYPE_CHECKING:
    from geoeq.data.dataset import Dataset

__all__ = ["BatchView", "make_loader"]


class BatchView(torch.utils.data.Dataset[Batch]):
    """A data set as the loader sees it: a portion of a sampler gives one batch.

    A batch that is not the whole of a step has ``whole_step`` [1, 4]: the graphs, atoms and free atoms of the step, and
    whether the batch counts.

    Args:
        dataset: where the records are.
        cutoff: find the edges shorter than this, Å; None for no edges.
        targets: the targets to include; None for all.
        dtype: of everything that is not a whole number.
    """

    def __init__(
        self,
        dataset: Dataset,
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
        batch = self.dataset.batch(portion.places, cutoff=self.cutoff, targets=self.targets, dtype=self.dtype)
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
    """A loader that makes the next batch in a thread while one is used.

    Batches and their order are those of the loader without. What was made, but not asked for, counts for nothing.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        return _ahead(super().__iter__())  # which draws from torch's generator: here, not in the thread


def _ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    # Leaving the loop, or an error, leaves the block, which waits for the one batch that is being made.
    # It computes alone: a team of its own would keep that of the training from its cores.
    with ThreadPoolExecutor(1, "geoeq-batches", torch.set_num_threads, (1,)) as thread:
        coming = thread.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, batches, None)
            yield batch


def make_loader(view: BatchView, sampler: BatchSampler, *, workers: int = 0, ahead: bool = False) -> DataLoader[Batch]:
    """A torch DataLoader that yields PyG batches.

    Args:
        view: the records.
        sampler: what is in the batches.
        workers: processes that read ahead.
        ahead: where there are no workers, make the next batch in a thread while one is used.
    """
    kind = _AheadLoader if ahead and not workers else DataLoader
    # Without a batch size of its own it asks the view for what the sampler yields.
    return kind(view, batch_size=None, sampler=sampler, num_workers=workers, collate_fn=_identity)
