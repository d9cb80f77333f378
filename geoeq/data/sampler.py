"""Divide structures into batches, in an order that depends only on seed and epoch, and among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from geoeq.errors import InputError

__all__ = ["BatchSampler", "Limit", "Portion", "Share"]

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """The batches of an epoch that belong to this process.

    Attributes:
        rank: number of the process, from 0.
        processes: number of processes that compute a step together.
        accumulate: number of batches of each process in a step.
    """

    rank: int = 0
    processes: int = 1
    accumulate: int = 1


@dataclass(frozen=True)
class Limit:
    """The largest size of a batch.

    Attributes:
        largest: largest number of units in a batch.
        unit: unit of the size: "graphs", "atoms" or "edges".
        sizes: number of atoms or edges of each structure of the data set; None for graphs, each of which counts 1.
    """

    largest: int
    unit: str = "graphs"
    sizes: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, sizes: Mapping[str, int | None], count: Callable[[str], NDArray[np.int64]]) -> Self:
        """Return the limit that one of ``sizes`` sets; ``count`` gives the atoms or edges of each structure.

        Raises:
            InputError: none or several of ``sizes`` are set.
        """
        limits = [(unit, largest) for unit, largest in sizes.items() if largest is not None]
        if len(limits) != 1:
            raise InputError("Specify the size of a batch by exactly one of batch_size, batch_atoms and batch_edges.")
        unit, largest = limits[0]
        return cls(largest) if unit == "graphs" else cls(largest, unit, count(unit))

    def check(self, indices: Indices) -> None:
        """Check that each of these structures fits into a batch.

        Raises:
            InputError: a structure is larger than a batch, or the batch size is not positive.
        """
        if self.largest < 1:
            raise InputError(f"The batch size is {self.largest}, but it must be 1 or more.")
        sizes = np.zeros(0) if self.sizes is None else self.sizes[indices]
        if len(sizes) and sizes.max() > self.largest:
            raise InputError(
                f"Structure {indices[sizes.argmax()]} has {sizes.max()} {self.unit}, but a batch holds at most "
                f"{self.largest}. Set batch_{self.unit} to {sizes.max()} or more."
            )

    def bounds(self, order: Indices) -> NDArray[np.int64]:
        """Return the positions in ``order`` at which batches begin, and the end of the last: [batches + 1]."""
        if self.sizes is None:
            return np.append(np.arange(0, len(order), self.largest, dtype=np.int64), len(order))
        sizes = self.sizes[order]
        ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        bounds = [0]
        while bounds[-1] < len(order):
            bounds.append(int(np.searchsorted(ends, ends[bounds[-1]] + self.largest, side="right")) - 1)
        return np.array(bounds, dtype=np.int64)


@dataclass(frozen=True)
class Portion:
    """The batch that one process computes in a step.

    Attributes:
        indices: indices of the structures.
        step: indices of all structures of the step, over all processes; None if the batch is the whole step.
        counted: False if no batch is left for this process: it then computes one structure that counts for nothing.
    """

    indices: list[int]
    step: list[int] | None
    counted: bool


class BatchSampler(Sampler[Portion]):
    """Batches of a part of a data set, in an order that depends only on (seed, epoch).

    Batches are filled in that order. A step takes ``processes * accumulate`` batches; the last ones are divided so that
    every process has the same number. Every structure counts exactly once per epoch.

    Args:
        indices: indices of the structures, such as one part of a split.
        limit: largest size of a batch.
        shuffle: whether each epoch has another order; otherwise the order is that of ``indices``.
        seed: random seed of the order.
        epoch: first epoch.
        drop_last: whether to leave out final batches that are smaller (in graphs) or do not fill a step.
        share: the batches of this process.

    Raises:
        InputError: a structure is larger than a batch, or the batch size is not positive.
    """

    def __init__(
        self,
        indices: Indices,
        limit: Limit,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        drop_last: bool = False,
        share: Share | None = None,
    ) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        limit.check(self.indices)
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.share = share or Share()
        self._limit, self._drop_last = limit, drop_last
        self._skip = (epoch, 0)
        self._known: tuple[int, NDArray[np.int64]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def resume(self, epoch: int, batches: int) -> None:
        """Skip the first ``batches`` batches of each process in ``epoch``; other epochs stay complete."""
        self.epoch = epoch
        self._skip = (epoch, batches)

    def order(self, epoch: int) -> Indices:
        """Return all indices in the order of ``epoch``."""
        if not self.shuffle:
            return self.indices
        return np.random.default_rng([self.seed, epoch]).permutation(self.indices)

    def batches(self, epoch: int) -> int:
        """Return the number of batches of each process in ``epoch``; with a limit of atoms or edges, epochs differ."""
        return -(-(len(self._bounds(epoch)) - 1) // self.share.processes)

    def steps(self, epoch: int) -> int:
        """Return the number of optimizer steps in ``epoch``."""
        return -(-self.batches(epoch) // self.share.accumulate)

    def __iter__(self) -> Iterator[Portion]:
        yield from islice(self._portions(self.epoch), self._skipped(), None)

    def __len__(self) -> int:
        return max(self.batches(self.epoch) - self._skipped(), 0)

    def _skipped(self) -> int:
        epoch, batches = self._skip
        return batches if epoch == self.epoch else 0

    def _bounds(self, epoch: int) -> NDArray[np.int64]:
        known = self._known  # a loader may call this from another thread
        if known is None or known[0] != epoch:
            bounds = self._limit.bounds(self.order(epoch))
            if self._drop_last:
                small = self._limit.sizes is None and bounds[-1] % self._limit.largest != 0
                count = len(bounds) - 1 - small
                bounds = bounds[: count - count % self.share.processes + 1]
            self._known = known = (epoch, bounds)
        return known[1]

    def _portions(self, epoch: int) -> Iterator[Portion]:
        share, order, bounds = self.share, self.order(epoch), self._bounds(epoch)
        together = share.processes * share.accumulate
        for first in range(0, len(bounds) - 1, together):
            ends = bounds[first : first + together + 1].tolist()
            step = None if together == 1 else order[ends[0] : ends[-1]].tolist()
            ends = _split(ends, share.processes)
            for number in range(share.rank, _round_up(len(ends) - 1, share.processes), share.processes):
                counted = number < len(ends) - 1
                start, end = (ends[number], ends[number + 1]) if counted else (ends[0], ends[0] + 1)
                yield Portion(order[start:end].tolist(), step, counted)


def _round_up(count: int, processes: int) -> int:
    return -(-count // processes) * processes


def _split(ends: list[int], processes: int) -> list[int]:
    """Divide the longest batches until each process has the same number, or no batch can be divided."""
    while (len(ends) - 1) % processes:
        longest = max(range(len(ends) - 1), key=lambda number: ends[number + 1] - ends[number])
        length = ends[longest + 1] - ends[longest]
        if length < 2:
            break
        ends = [*ends[: longest + 1], ends[longest] + length // 2, *ends[longest + 1 :]]
    return ends
