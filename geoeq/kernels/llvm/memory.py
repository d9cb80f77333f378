"""Room for large results: pages of 2 MB where the system has them."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable

from torch import Tensor

__all__ = ["empty"]

#: Bytes from which on the C library takes fresh pages from the system at every allocation (glibc's upper limit).
_FRESH = 32 * 2**20


@functools.cache
def _advise() -> Callable[[int, int, int], int] | None:
    """The system's ``madvise``, where pages can be large."""
    if not sys.platform.startswith("linux") or not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int], ctypes.c_int
    return function


def empty(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``like.new_empty(shape)``, for a result that is soon written as a whole.

    The system clears a fresh page when it is first written to. For large results that is most of a kernel's time where
    pages have 4 kB. Advice that is not followed does no harm.
    """
    tensor = like.new_empty(shape)
    size, advise = tensor.numel() * tensor.element_size(), _advise()
    if advise is not None and size >= _FRESH:
        first = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        advise(first, tensor.data_ptr() + size - first, mmap.MADV_HUGEPAGE)
    return tensor
