"""Allocation of large results in pages of 2 MB, if the system has them."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

from torch import Tensor

__all__ = ["empty"]

#: Bytes from which the C library takes fresh pages from the system for every allocation (glibc's upper limit).
_FRESH = 32 * 2**20


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    """Return the system's ``madvise``; None if there are no large pages."""
    if not sys.platform.startswith("linux") or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    return function


def empty(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return ``like.new_empty(shape)``, in large pages, for a result that will soon be written completely.

    The system clears a page on its first write. For large results this takes most of a kernel's time with pages of
    4 kB. Advice that the system does not follow does no harm.
    """
    tensor = like.new_empty(shape)
    size, advise = tensor.numel() * tensor.element_size(), _advise()
    if advise is not None and size >= _FRESH:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(first, tensor.data_ptr() + size - first, mmap.MADV_HUGEPAGE)
    return tensor
