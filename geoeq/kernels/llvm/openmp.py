"""Distribute the pieces of a kernel among PyTorch's own worker threads, if they are OpenMP's.

These threads stay awake for a while after every operation of PyTorch; additional threads would compete with them for
cores.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from geoeq.kernels.llvm.compiler import address
from geoeq.kernels.llvm.kernel import Kernel

__all__ = ["run_with_openmp"]

#: Numbers in a job before the addresses of tensors: kernel, next piece, number of pieces, their bounds, number of rows.
_HEADER = 5

_forked = False


def _note_fork() -> None:
    """Remember that this process was forked: it has no OpenMP threads, and OpenMP does not know it."""
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


@functools.cache
def _parallel() -> Callable[[int, object, int, int], None] | None:
    """Return ``GOMP_parallel`` of the OpenMP linked with PyTorch (GNU's, LLVM's or Intel's); None if there is none."""
    try:
        # The symbol is also searched in the libraries that libtorch_cpu.so is linked with.
        function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    parallel: Callable[[int, object, int, int], None] = function
    return parallel


@functools.cache
def _worker(pointers: int) -> int:
    """Return the address of a function that takes pieces of a job until none are left."""
    slots = [f"  %slot{n} = getelementptr i64, ptr %job, i64 {n}" for n in range(_HEADER + pointers)]
    loads = [f"  %p{n} = load ptr, ptr %slot{_HEADER + n}" for n in range(pointers)]
    arguments = ", ".join([*(f"ptr %p{n}" for n in range(pointers)), "i64 %rows", "i64 %first", "i64 %last"])
    text = f"""define void @team(ptr %job) {{
entry:
{chr(10).join(slots)}
  %kernel = load ptr, ptr %slot0
  %count = load i64, ptr %slot2
  %bounds = load ptr, ptr %slot3
  %rows = load i64, ptr %slot4
{chr(10).join(loads)}
  br label %next
next:
  %piece = atomicrmw add ptr %slot1, i64 1 monotonic
  %over = icmp sge i64 %piece, %count
  br i1 %over, label %end, label %work
work:
  %at = getelementptr i64, ptr %bounds, i64 %piece
  %after = getelementptr i64, ptr %at, i64 1
  %first = load i64, ptr %at
  %last = load i64, ptr %after
  call void %kernel({arguments})
  br label %next
end:
  ret void
}}
"""
    return address(Kernel("team", text, 1))


def run_with_openmp(kernel: Kernel, addresses: Sequence[int], rows: int, bounds: Sequence[int]) -> bool:
    """Run the kernel on the rows between consecutive ``bounds``; return False, doing nothing, if OpenMP is unavailable.

    The result does not depend on which thread takes which piece, as long as pieces write to separate rows.
    """
    parallel = _parallel()
    if _forked or parallel is None:
        return False
    pieces = (ctypes.c_int64 * len(bounds))(*bounds)
    header = (address(kernel), 0, len(bounds) - 1, ctypes.addressof(pieces), rows)
    job = (ctypes.c_int64 * (_HEADER + len(addresses)))(*header, *addresses)
    parallel(_worker(len(addresses)), job, torch.get_num_threads(), 0)
    return True
