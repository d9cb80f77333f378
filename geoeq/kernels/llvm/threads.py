"""Rows shared among as many threads as torch uses, without a runtime of its own that a fork could break."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import torch

__all__ = ["in_threads", "shares"]

#: pieces for each thread: one that is delayed leaves its pieces to the others.
_PIECES = 4

_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def _forget() -> None:
    """A forked process has its parent's pools, and none of their threads."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_forget)


def _pool(threads: int) -> ThreadPoolExecutor:
    with _lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="geoeq")
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
