"""Compile and launch kernels in Triton's language: the only file that imports triton. Nothing is compiled at import."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import linecache
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geoeq.errors import BackendError
from geoeq.kernels.triton.kernel import INDICES, SUMS, Kernel

__all__ = ["Usage", "interpreted", "launch", "time_of", "unavailable", "usage"]

_POINTERS = {torch.float64: "*fp64", torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}

#: Loops over edges cannot be pipelined: their loads depend on one another, and other programs hide the latency.
_STAGES = 1


class Usage(NamedTuple):
    """Resources of a GPU that a kernel uses.

    Attributes:
        registers: number of registers per thread.
        spilled: bytes per thread that did not fit into registers.
        shared: bytes of shared memory per program.
        assembly: text in PTX, NVIDIA's portable assembly.
    """

    registers: int
    spilled: int
    shared: int
    assembly: str


def interpreted() -> bool:
    """Return whether Triton runs kernels in Python, on CPU tensors (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def unavailable() -> str | None:
    """Return the reason why no kernel can run here; None if it can."""
    if not interpreted() and not (torch.cuda.is_available() and torch.version.cuda):
        return "there is no NVIDIA GPU that torch can use"
    try:
        importlib.import_module("triton")
    except (ImportError, OSError, RuntimeError) as error:
        return f"triton does not work here ({error})"
    return None if interpreted() else _unsafe_cache()


def _unsafe_cache() -> str | None:
    """Return why Triton's cache, whose programs it loads unchecked, could hold those of another user; None if not."""
    home = Path(os.environ.get("TRITON_HOME") or Path.home())
    folder = Path(os.environ.get("TRITON_CACHE_DIR") or home / ".triton" / "cache")
    if not folder.exists():
        return None  # Triton makes it for this user
    status = folder.stat()
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        return (
            f"other users can write programs into Triton's cache {folder}; take their permission away (chmod go-w), or "
            "set the environment variable TRITON_CACHE_DIR to a folder of your own"
        )
    return None


@functools.cache
def _function(kernel: Kernel) -> Any:
    """Return Triton's function, which reads its own text; Python's line cache provides it without a file."""
    name = f"<geoeq {kernel.name} {hashlib.sha256(kernel.text.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(kernel.text), None, kernel.text.splitlines(keepends=True), name)
    module: dict[str, Any] = {"__name__": f"geoeq.kernels.triton.{kernel.name}"}
    exec(compile(kernel.text, name, "exec"), module)
    return module[kernel.name]


def launch(kernel: Kernel, count: int, arguments: tuple[Tensor | int, ...]) -> None:
    """Launch the kernel for ``count`` rows.

    Raises:
        BackendError: the tensors are not on an NVIDIA GPU.
    """
    programs, device = -(-count // kernel.rows) * kernel.tasks, _device(arguments)
    if device.type != "cuda" and not interpreted():
        raise BackendError(f"The kernel backend 'triton' takes tensors on an NVIDIA GPU; these are on {device}.")
    if programs == 0:
        return
    # Triton launches on the current device.
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        _function(kernel)[(programs,)](*arguments, num_warps=kernel.tile.warps, num_stages=_STAGES)


def time_of(kernel: Kernel, count: int, arguments: tuple[Tensor | int, ...], repeats: int = 5) -> float:
    """Return the time of one launch on a GPU in milliseconds, without compilation."""
    launch(kernel, count, arguments)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.device(_device(arguments)):
        begin.record()
        for _ in range(repeats):
            launch(kernel, count, arguments)
        end.record()
    end.synchronize()
    milliseconds: float = begin.elapsed_time(end)
    return milliseconds / repeats


def _device(arguments: tuple[Tensor | int, ...]) -> torch.device:
    return next(argument.device for argument in arguments if isinstance(argument, Tensor))


def usage(kernel: Kernel, dtype: torch.dtype, capability: int) -> Usage:
    """Compile the kernel for NVIDIA GPUs of a capability (90 for H100, 80 for A100), and return its resource usage.

    No GPU is needed.

    Raises:
        BackendError: NVIDIA's assembler refuses Triton's result.
    """
    triton, backends = importlib.import_module("triton"), importlib.import_module("triton.backends.compiler")
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    kinds = {name: _POINTERS[wide if name in SUMS else dtype] for name in kernel.arguments}
    kinds |= {name: "*i64" for name in kernel.arguments if name in INDICES}
    kinds |= {name: "i64" for name in kernel.arguments if name == "count"}
    aligned = {(n,): [["tt.divisibility", 16]] for n, name in enumerate(kernel.arguments) if name != "count"}
    source = triton.compiler.ASTSource(fn=_function(kernel), signature=kinds, constexprs={}, attrs=aligned)
    options = {"num_warps": kernel.tile.warps, "num_stages": _STAGES}
    compiled = triton.compile(source, target=backends.GPUTarget("cuda", capability, 32), options=options)
    assembly: str = compiled.asm["ptx"]
    report = _assembled(Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "ptxas", assembly)
    registers = re.search(r"Used (\d+) registers", report)
    spilled = re.search(r"(\d+) bytes spill stores", report)
    if registers is None or spilled is None:
        raise BackendError(f"ptxas did not report the resources of the kernel '{kernel.name}':\n{report}")
    return Usage(int(registers[1]), int(spilled[1]), compiled.metadata.shared, assembly)


def _assembled(program: Path, assembly: str) -> str:
    target = re.search(r"^\.target (\S+?)(?:,|$)", assembly, re.MULTILINE)
    if target is None:
        raise BackendError("The assembly from Triton does not name its target GPU.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(assembly)
        command = [str(program), "-v", f"--gpu-name={target[1]}", str(path), "-o", os.devnull]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BackendError(f"ptxas refused the assembly:\n{result.stderr}")
    return result.stdout + result.stderr
