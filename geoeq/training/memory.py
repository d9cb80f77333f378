"""Peak memory of a computation, and available memory."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
from pathlib import Path

import torch

__all__ = ["available_memory", "give_back", "is_out_of_memory", "peak_memory", "start_peak"]

_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")

#: Out-of-memory messages of the system, and of CUDA and its libraries, which torch passes on unchanged.
_MESSAGES = ("can't allocate memory", "not enough memory", "CUDA error: out of memory", "ALLOC_FAILED")


def start_peak(device: torch.device) -> None:
    """Reset the peak, where the system allows it (GPUs, Linux); elsewhere it covers the process so far."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Return the peak since ``start_peak`` in bytes: tensors on a GPU, or the resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        return _kilobytes(_STATUS, "VmHWM") * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that this process could use, including those in use; None if the system does not tell.

    On CPUs it is the smaller one of the free memory of the machine and the limit of the control group.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    machine = Path("/proc/meminfo")
    if not machine.exists():
        return None
    own = _kilobytes(_STATUS, "VmRSS") * 1024
    limits = [_kilobytes(machine, "MemAvailable") * 1024 + own]
    with contextlib.suppress(OSError, ValueError):  # "max" is not a number
        allowed, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        limits.append(max(allowed - used, 0) + own)
    return min(limits)


def give_back() -> None:
    """Collect garbage (a trainer and its parts refer to each other), and return cached memory to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out."""
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _MESSAGES)
    )


def _kilobytes(file: Path, key: str) -> int:
    line = next(line for line in file.read_text(encoding="ascii").splitlines() if line.startswith(key))
    return int(line.split()[1])
