"""Distribute work among as many Python threads as PyTorch uses; a fork does no harm."""

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

#: Pieces per thread: other threads take over the pieces of one that is delayed.
_PIECES = 4

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}
_serial_pools: dict[int, ThreadPoolExecutor] = {}


def _forget_pools() -> None:
    """Forget the pools of the parent process: a forked process has none of their threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    _serial_pools.clear()


os.register_at_fork(after_in_child=_forget_pools)


def _use_all_cores() -> None:
    """Let this thread use every core that any thread of the process may use.

    If OpenMP binds threads to cores (OMP_PROC_BIND), a new thread would share the core of the thread that created it.
    """
    if sys.platform == "linux":
        cores = set()
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(ProcessLookupError):  # the thread has just ended
                cores |= os.sched_getaffinity(int(task))
        os.sched_setaffinity(0, cores)


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, "geoeq", _use_all_cores)
        return _pools[threads]


def shares(work: int, smallest: int) -> int:
    """Return the number of pieces to divide ``work`` into, none of them smaller than ``smallest``."""
    threads = torch.get_num_threads()
    return 1 if threads == 1 else max(1, min(threads * _PIECES, work // max(smallest, 1)))


def in_threads(function: Callable[[int, int], None], bounds: Sequence[int]) -> None:
    """Call ``function(first, last)`` for all consecutive ``bounds``, on as many threads as PyTorch uses.

    The result does not depend on which thread takes which piece, as long as pieces write to separate rows.
    """
    pieces = list(pairwise(bounds))
    helpers = min(torch.get_num_threads(), len(pieces)) - 1
    remaining = iter(pieces)  # taking the next piece is atomic in the interpreter
    futures = [_pool(helpers).submit(_work, function, remaining) for _ in range(helpers)]
    _work(function, remaining)
    for future in futures:
        future.result()


def _work(function: Callable[[int, int], None], pieces: Iterator[tuple[int, int]]) -> None:
    for first, last in pieces:
        function(first, last)


def _use_one_torch_thread() -> None:
    _use_all_cores()
    torch.set_num_threads(1)


def _serial_pool(threads: int) -> ThreadPoolExecutor:
    """Return threads in which PyTorch starts no other threads."""
    with _lock:
        if threads not in _serial_pools:
            pool = ThreadPoolExecutor(threads, "geoeq", _use_one_torch_thread)
            started = threading.Barrier(threads)
            for future in [pool.submit(started.wait) for _ in range(threads)]:
                future.result()
            torch.set_num_threads(threads)  # set_num_threads also sets the number with which new threads begin
            _serial_pools[threads] = pool
        return _serial_pools[threads]


def in_order(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Return ``map(function, items)``, on as many threads as PyTorch uses, each of which uses PyTorch single-threaded.

    Results come in the order of the items, and at most as many are computed in advance as there are threads.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) < 2:
        yield from map(function, items)
        return

    def without_grad(item: Item) -> Result:
        with torch.no_grad():  # gradient mode is per thread, and on in a new one
            return function(item)

    pool, waiting = _serial_pool(threads), deque[Future[Result]]()
    for item in items:
        waiting.append(pool.submit(without_grad, item))
        if len(waiting) > threads:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
