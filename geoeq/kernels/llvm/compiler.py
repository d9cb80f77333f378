"""Compile LLVM assembly to functions of this process: the only file that imports llvmlite.

Object code is kept in the cache folder, so that later processes of the same user only load it. Nothing is compiled at
import.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from typing import Any

from geoeq.kernels.llvm.kernel import Kernel
from geoeq.kernels.llvm.object_cache import load_object, save_object

__all__ = ["address", "compiled", "lanes", "unavailable"]

#: Increment when the cached object code of a text changes for other reasons than LLVM's version.
_FORMAT = 2

_lock = threading.Lock()
_engines: list[Any] = []


def _renew_lock() -> None:
    """Replace the lock, which a process forked while another thread compiles inherits locked for ever."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


@functools.cache
def unavailable() -> str | None:
    """Return the reason why nothing can be compiled here; None if it can."""
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
    """Return the best number of lanes, for numbers of ``size`` bytes, of a vector on this processor."""
    return (64 if "+avx512f" in _features().split(",") else 32) // size


@functools.cache
def address(kernel: Kernel) -> int:
    """Return the address of the compiled kernel, valid for the life of the process."""
    with _lock:  # LLVM's objects belong to one thread at a time
        llvm = _llvm()
        code = _cached_object(kernel.text)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        _engines.append(engine)  # a function lives as long as its engine
        pointer: int = engine.get_function_address(kernel.name)
    return pointer


@functools.cache
def compiled(kernel: Kernel) -> Callable[..., None]:
    """Return the kernel as a function of addresses and three numbers; it releases Python's lock while it runs."""
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


def _cached_object(text: str) -> bytes:
    """Return the object code of the text, from the cache if it is there."""
    version = ".".join(map(str, _llvm().llvm_version_info))
    description = "\n".join([str(_FORMAT), version, _processor(), _features(), text])
    code = load_object(description)
    if code is None:
        code = _object(text)
        save_object(description, code)
    return code
