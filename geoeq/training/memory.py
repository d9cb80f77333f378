"""How much memory a computation takes, and how much there is."""

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

#: What is said of a want of memory by the system, and by CUDA and its libraries, which torch hands on as they are.
_WANT = ("can't allocate memory", "not enough memory", "CUDA error: out of memory", "ALLOC_FAILED")


def start_peak(device: torch.device) -> None:
    """Measure the peak anew, where that can be (GPUs, Linux); elsewhere it is that of the process so far."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Bytes: what tensors took on a GPU at the most, or what of the process was in memory, since ``start_peak``."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        return _kilobytes(_STATUS, "VmHWM") * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_memory(device: torch.device) -> int | None:
    """Bytes that this process could have, with those that it has; None where the system does not say.

    On CPUs it is the least of what the machine has left and of what the process group may use.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    machine = Path("/proc/meminfo")
    if not machine.exists():
        return None
    own = _kilobytes(_STATUS, "VmRSS") * 1024
    limits = [_kilobytes(machine, "MemAvailable") * 1024 + own]
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        allowed, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        limits.append(max(allowed - used, 0) + own)
    return min(limits)


def give_back() -> None:
    """Free what nothing refers to but itself (a trainer and its parts do), and give it back to the GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left."""
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _WANT)
    )


def _kilobytes(file: Path, key: str) -> int:
    line = next(line for line in file.read_text(encoding="ascii").splitlines() if line.startswith(key))
    return int(line.split()[1])
