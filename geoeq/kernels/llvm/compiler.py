"""LLVM's assembly language to functions of this process: the only file that imports llvmlite.

What was compiled is kept in the cache folder, so that the next process only loads it. Nothing is compiled at import.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geoeq.kernels.llvm.kernel import Kernel
from geoeq.resources import cache_root

__all__ = ["address", "compiled", "lanes", "unavailable"]

#: To be raised when what is written for one text changes by other means than LLVM's version.
_FORMAT = 1

_DIGEST = hashlib.sha256().digest_size
_lock = threading.Lock()
_engines: list[Any] = []


def _renew() -> None:
    """A process that is forked while another thread compiles has the lock taken, and nobody who gives it back."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew)


@functools.cache
def unavailable() -> str | None:
    """Why nothing can be compiled here; None where it can."""
    try:
        _llvm()
        _machine()
    except (ImportError, OSError, RuntimeError) as error:
        return f"llvmlite does not work here ({error})"
    return None


@functools.cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def _machine() -> Any:
    llvm = _llvm()
    return llvm.Target.from_default_triple().create_target_machine(cpu=_processor(), features=_features(), opt=3)


def _processor() -> str:
    name: str = _llvm().get_host_cpu_name()
    return name


def _features() -> str:
    features: str = _llvm().get_host_cpu_features().flatten()
    return features


@functools.cache
def lanes(size: int) -> int:
    """How many numbers of ``size`` bytes one vector of this processor should hold."""
    return (64 if "+avx512f" in _features().split(",") else 32) // size


@functools.cache
def address(kernel: Kernel) -> int:
    """Where the compiled kernel is, for as long as the process lives."""
    with _lock:  # LLVM's objects belong to one thread at a time
        llvm = _llvm()
        code = _cached(kernel.text) or _keep(kernel.text, _object(kernel.text))
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _engines.append(engine)  # a function lives as long as its engine
        found: int = engine.get_function_address(kernel.name)
    return found


@functools.cache
def compiled(kernel: Kernel) -> Callable[..., None]:
    """The kernel as a function of addresses and three numbers, which does not hold Python's lock while it runs."""
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * kernel.pointers, *[ctypes.c_int64] * 3)
    return kind(address(kernel))


def _object(text: str) -> bytes:
    llvm, machine = _llvm(), _machine()
    module = llvm.parse_assembly(text)
    module.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    code: bytes = machine.emit_object(module)
    return code


def _place(text: str) -> Path:
    version = ".".join(map(str, _llvm().llvm_version_info))
    decides = "\n".join([str(_FORMAT), version, _processor(), _features(), text])
    return cache_root() / "kernels" / f"{hashlib.sha256(decides.encode()).hexdigest()[:32]}.o"


def _cached(text: str) -> bytes | None:
    """The object code on disk, unless it is not there, not readable or damaged."""
    try:
        data = _place(text).read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST], data[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(text: str, code: bytes) -> bytes:
    """Write it, whole or not at all; where nothing can be written, every process compiles for itself."""
    place = _place(text)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.sha256(code).digest() + code)
        os.replace(name, place)
    return code
