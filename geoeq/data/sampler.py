"""Which structures make a batch: an order that depends on seed and epoch alone, shared out to processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from geoeq.errors import InputError

__all__ = ["BatchSampler", "Limit", "Portion", "Share"]

Places = NDArray[np.int64]


@dataclass(frozen=True)
class Share:
    """Which batches of an epoch are for this process.

    Attributes:
        rank: the number of the process, from 0.
        processes: that compute a step together.
        accumulate: batches of each process in a step.
    """

    rank: int = 0
    processes: int = 1
    accumulate: int = 1


@dataclass(frozen=True)
class Limit:
    """How large a batch may be.

    Attributes:
        largest: what a batch holds at the most.
        unit: of what: "graphs", "atoms" or "edges".
        sizes: atoms or edges of each structure of the data set; None for graphs, each of which counts 1.
    """

    largest: int
    unit: str = "graphs"
    sizes: NDArray[np.int64] | None = None

    def check(self, places: Places) -> None:
        """Whether each of these structures fits into a batch.

        Raises:
            InputError: one alone is larger than a batch may be, or no batch may hold anything.
        """
        if self.largest < 1:
            raise InputError(f"The batch size is {self.largest}; 1 or more would be right.")
        sizes = np.zeros(0) if self.sizes is None else self.sizes[places]
        if len(sizes) and sizes.max() > self.largest:
            raise InputError(
                f"Structure {places[sizes.argmax()]} has {sizes.max()} {self.unit}, and a batch holds {self.largest} "
                f"at the most; batch_{self.unit} of {sizes.max()} or more would be right."
            )

    def bounds(self, order: Places) -> NDArray[np.int64]:
        """Where batches of structures in this order begin, and where the last ends: [batches + 1]."""
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
    """What one process computes at once.

    Attributes:
        places: of the structures.
        step: places of all structures of the step, for which all processes compute; None if these are all.
        counted: False if there was none left for this process: it computes another's, which counts for nothing.
    """

    places: list[int]
    step: list[int] | None
    counted: bool


class BatchSampler(Sampler[Portion]):
    """Batches of a part of a data set, in an order that depends only on (seed, epoch).

    Batches are filled in that order. Each step takes as many as there are processes, times ``accumulate``; the last
    batches are split so that every process has as many. Every structure counts exactly once an epoch.

    Args:
        indices: the part, such as one of a split.
        limit: of a batch.
        shuffle: a new order each epoch; otherwise that of ``indices``.
        seed: of the order.
        epoch: the epoch to begin with.
        drop_last: leave out batches at the end that are smaller (of graphs) or fill no step of all processes.
        share: the batches that are wanted.

    Raises:
        InputError: a structure is larger than a batch may be, or the batch size is not positive.
    """

    def __init__(
        self,
        indices: Places,
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
        """Choose the epoch whose order the next iteration has."""
        self.epoch = epoch

    def resume(self, epoch: int, batches: int) -> None:
        """Begin ``epoch`` after the first ``batches`` batches of each process; other epochs stay whole."""
        self.epoch = epoch
        self._skip = (epoch, batches)

    def order(self, epoch: int) -> Places:
        """All places in the order of ``epoch``."""
        if not self.shuffle:
            return self.indices
        return np.random.default_rng([self.seed, epoch]).permutation(self.indices)

    def batches(self, epoch: int) -> int:
        """Batches of each process in the whole of ``epoch``; with a limit of atoms or edges, epochs differ."""
        return -(-(len(self._bounds(epoch)) - 1) // self.share.processes)

    def steps(self, epoch: int) -> int:
        """Optimizer steps in the whole of ``epoch``."""
        return -(-self.batches(epoch) // self.share.accumulate)

    def __iter__(self) -> Iterator[Portion]:
        yield from islice(self._portions(self.epoch), self._skipped(), None)

    def __len__(self) -> int:
        return max(self.batches(self.epoch) - self._skipped(), 0)

    def _skipped(self) -> int:
        epoch, batches = self._skip
        return batches if epoch == self.epoch else 0

    def _bounds(self, epoch: int) -> NDArray[np.int64]:
        known = self._known  # a loader may ask from a thread of its own
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
            for number in range(share.rank, _whole(len(ends) - 1, share.processes), share.processes):
                counted = number < len(ends) - 1
                start, end = (ends[number], ends[number + 1]) if counted else (ends[0], ends[0] + 1)
                yield Portion(order[start:end].tolist(), step, counted)


def _whole(count: int, processes: int) -> int:
    return -(-count // processes) * processes


def _split(ends: list[int], processes: int) -> list[int]:
    """Split the longest batches until there is one for each process, or none is left that can be split."""
    while (len(ends) - 1) % processes:
        longest = max(range(len(ends) - 1), key=lambda number: ends[number + 1] - ends[number])
        length = ends[longest + 1] - ends[longest]
        if length < 2:
            break
        ends = [*ends[: longest + 1], ends[longest] + length // 2, *ends[longest + 1 :]]
    return ends
