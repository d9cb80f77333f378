"""Pieces of a kernel shared among the threads that PyTorch itself works with, where these are OpenMP's.

Those wait for a while, awake, after every operation of PyTorch: threads of our own would have to share cores with them.
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

#: Numbers of a job before the addresses of tensors: the kernel, the next piece, how many there are, their bounds, rows.
_HEADER = 5

_forked = False


def _leave() -> None:
    """A forked process has no threads, and OpenMP does not know it."""
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_leave)


@functools.cache
def _parallel() -> Callable[[int, object, int, int], None] | None:
    """``GOMP_parallel`` of the OpenMP that PyTorch is linked with (GNU's, LLVM's or Intel's); None if there is none."""
    try:
        # A name is looked up in what the library is linked with, too.
        function = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    found: Callable[[int, object, int, int], None] = function
    return found


@functools.cache
def _worker(pointers: int) -> int:
    """Address of a function that does pieces of a job as long as there are any."""
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
    """Run the kernel on the rows between all neighbours in ``bounds``; whether it was done, as not all can.

    Which thread takes which piece does not matter to the result if pieces write to places of their own.
    """
    parallel = _parallel()
    if _forked or parallel is None:
        return False
    pieces = (ctypes.c_int64 * len(bounds))(*bounds)
    header = (address(kernel), 0, len(bounds) - 1, ctypes.addressof(pieces), rows)
    job = (ctypes.c_int64 * (_HEADER + len(addresses)))(*header, *addresses)
    parallel(_worker(len(addresses)), job, torch.get_num_threads(), 0)
    return True
