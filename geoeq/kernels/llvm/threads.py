"""Work shared among as many threads as torch uses, without a runtime of its own that a fork could break."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

__all__ = ["in_order", "in_threads", "shares"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: pieces for each thread: one that is delayed leaves its pieces to the others.
_PIECES = 4

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
_lone: dict[int, ThreadPoolExecutor] = {}


def _forget() -> None:
    """A forked process has its parent's pools, and none of their threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    _lone.clear()


os.register_at_fork(after_in_child=_forget)


def _spread() -> None:
    """Let this thread use every core that a thread of the process may use.

    Where OpenMP binds threads to cores (OMP_PROC_BIND), a new one would share that of the thread which made it.
    """
    if sys.platform == "linux":
        cores = set()
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                cores |= os.sched_getaffinity(int(task))
        os.sched_setaffinity(0, cores)


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, "geoeq", _spread)
        return _pools[threads]


def shares(work: int, smallest: int) -> int:
    """Into how many pieces ``work`` is to be cut: one where a piece would be smaller than ``smallest``."""
    threads = torch.get_num_threads()
    return 1 if threads == 1 else max(1, min(threads * _PIECES, work // max(smallest, 1)))


def in_threads(function: Callable[[int, int], None], bounds: Sequence[int]) -> None:
    """``function(first, last)`` of all neighbours in ``bounds``, by as many threads as torch uses.

    Which thread takes which piece does not matter to the result if pieces write to places of their own.
    """
    pieces = list(pairwise(bounds))
    helpers = min(torch.get_num_threads(), len(pieces)) - 1
    remaining = iter(pieces)  # taking the next one is a single step of the interpreter
    futures = [_pool(helpers).submit(_work, function, remaining) for _ in range(helpers)]
    _work(function, remaining)
    for future in futures:
        future.result()


def _work(function: Callable[[int, int], None], pieces: Iterator[tuple[int, int]]) -> None:
    for first, last in pieces:
        function(first, last)


def _alone() -> None:
    _spread()
    torch.set_num_threads(1)


def _lone_pool(threads: int) -> ThreadPoolExecutor:
    """Threads in which torch uses no others."""
    with _lock:
        if threads not in _lone:
            pool = ThreadPoolExecutor(threads, "geoeq", _alone)
            started = threading.Barrier(threads)
            for future in [pool.submit(started.wait) for _ in range(threads)]:
                future.result()
            torch.set_num_threads(threads)  # their number is also what every other new thread begins with
            _lone[threads] = pool
        return _lone[threads]


def in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """``map(function, items)``, by as many threads as torch uses, each of which uses torch by itself.

    Results come in the order of the items, and no more of them are ahead of what was asked for than there are threads.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) < 2:
        yield from map(function, items)
        return

    def alone(item: Item) -> Result:
        with torch.no_grad():  # a new thread would record derivatives
            return function(item)

    pool, waiting = _lone_pool(threads), deque[Future[Result]]()
    for item in items:
        waiting.append(pool.submit(alone, item))
        if len(waiting) > threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
