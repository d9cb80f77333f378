"""Batches for training: an order that depends on seed and epoch alone, and edges found on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Sampler
from torch_geometric.data import Batch

from geoeq.errors import InputError

if TYPE_CHECKING:
    from geoeq.data.dataset import Dataset

__all__ = ["BatchView", "EpochSampler", "make_loader"]


class EpochSampler(Sampler[int]):
    """The places of a part of a data set, in an order that depends only on (seed, epoch).

    Args:
        indices: the part, such as one of a split.
        shuffle: a new order each epoch; otherwise that of ``indices``.
        seed: of the order.
        epoch: the epoch to begin with.
    """

    def __init__(self, indices: NDArray[np.int64], *, shuffle: bool = False, seed: int = 0, epoch: int = 0) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self._skip = (epoch, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration has."""
        self.epoch = epoch

    def resume(self, epoch: int, records: int) -> None:
        """Begin ``epoch`` after its first ``records`` records; other epochs stay whole."""
        self.epoch = epoch
        self._skip = (epoch, records)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """All places in the order of ``epoch``."""
        if not self.shuffle:
            return self.indices
        return np.random.default_rng([self.seed, epoch]).permutation(self.indices)

    def _skipped(self) -> int:
        epoch, records = self._skip
        return records if epoch == self.epoch else 0

    def __iter__(self) -> Iterator[int]:
        yield from self.order(self.epoch)[self._skipped() :].tolist()

    def __len__(self) -> int:
        return max(len(self.indices) - self._skipped(), 0)


class BatchView(torch.utils.data.Dataset[Batch]):
    """A data set as the loader sees it: a list of places gives one batch.

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

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The records at ``indices`` as one batch."""
        return self.dataset.batch(indices, cutoff=self.cutoff, targets=self.targets, dtype=self.dtype)


def _identity(batch: Batch) -> Batch:
    return batch


def make_loader(
    view: BatchView, sampler: EpochSampler, batch_size: int, *, drop_last: bool = False, workers: int = 0
) -> DataLoader[Batch]:
    """A torch DataLoader that yields PyG batches.

    Args:
        view: the records.
        sampler: their order.
        batch_size: graphs in a batch.
        drop_last: leave out the last batch if it is smaller than the others.
        workers: processes that read ahead.

    Raises:
        InputError: the batch size is not positive.
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}; 1 or more would be right.")
    return DataLoader(
        view,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        num_workers=workers,
        collate_fn=_identity,
    )
