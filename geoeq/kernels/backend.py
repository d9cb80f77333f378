"""The registry of backends, and the choice among them."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from geoeq.derivatives import in_transform
from geoeq.errors import BackendError, check_name, unknown_name
from geoeq.kernels.backends.reference import Backend

__all__ = ["BackendStatus", "choose", "decomposed", "register", "registered", "report", "use"]

AnyBackend = TypeVar("AnyBackend", bound=Backend)


@dataclass(frozen=True)
class BackendStatus:
    """The name of a backend, and why it cannot be used (None if it can); one line of ``geoeq doctor``."""

    name: str
    reason: str | None

    @property
    def available(self) -> bool:
        return self.reason is None


_BACKENDS: dict[str, Backend] = {}
# A plain list whose last entry applies: torch.compile reads neither ContextVar nor threading.local.
_forced: list[str] = []


def register(backend: Backend) -> None:
    """Add a backend to the registry; the first one that is available and supports the values is chosen."""
    _BACKENDS[backend.name] = backend


def registered(name: str, kind: type[AnyBackend]) -> AnyBackend:
    """Return the backend called ``name``, which must be an instance of ``kind``.

    Raises:
        BackendError: no such backend is registered, or it is of another kind.
    """
    backend = _BACKENDS.get(name)
    if not isinstance(backend, kind):
        names = [known for known, other in _BACKENDS.items() if isinstance(other, kind)]
        raise BackendError(unknown_name("kernel backend", name, names))
    return backend


def report() -> list[BackendStatus]:
    """Return the status of every backend, in order of preference."""
    return [BackendStatus(name, backend.available()) for name, backend in _BACKENDS.items()]


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Force the backend ``name`` within a ``with`` block, for the whole process (like torch's own flags).

    Raises:
        BackendError: the backend is unknown or not available here; the message says why.
    """
    check_name("kernel backend", name, _BACKENDS, BackendError)
    reason = _BACKENDS[name].available()
    if reason is not None:
        raise BackendError(f"The kernel backend '{name}' cannot be used here: {reason}")
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def decomposed() -> bool:
    """Return whether torch.export is tracing with the reference forced, so that only PyTorch's operators may appear."""
    tracing = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return tracing and _forced[-1:] == ["reference"]


def choose(values: Tensor) -> Backend:
    """Return the backend for these values: the forced one, or the first that supports them and is available.

    Warns once if a backend that supports them is skipped because it is not available.
    """
    if _forced:
        return _BACKENDS[_forced[-1]]
    if not torch.compiler.is_compiling() and in_transform():
        return _BACKENDS["reference"]  # geoeq's operators have no rules for vmap, jacrev and the like
    for name, backend in _BACKENDS.items():
        if backend.supports(values) and _usable(name):
            return backend
    raise BackendError(f"No kernel backend supports {values.dtype} on {values.device.type}.")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # the check may load a library
def _usable(name: str) -> bool:
    return _checked(name)


@functools.cache
def _checked(name: str) -> bool:
    reason = _BACKENDS[name].available()
    if reason is not None:
        warnings.warn(f"The kernel backend '{name}' is not used, a slower one is: {reason}", stacklevel=2)
    return reason is None
