"""The Backend contract, and how one is chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from geoeq.errors import BackendError, unknown_name
from geoeq.kernels.paths import Paths

__all__ = [
    "Backend",
    "BackendStatus",
    "Segments",
    "TensorProducts",
    "choose",
    "choose_tensor_products",
    "register",
    "register_tensor_products",
    "report",
    "use",
]


@dataclass(frozen=True)
class Segments:
    """Which segment each row belongs to.

    Attributes:
        index: [E] int64, the segment of each row, in any order.
        num_segments: how many there are; some may be empty.
        row_pointers: [num_segments + 1] int64 where ``index`` is sorted: segment s is the rows
            ``row_pointers[s]`` to ``row_pointers[s + 1]``. None where nothing is known of the order.
    """

    index: Tensor
    num_segments: int
    row_pointers: Tensor | None = None


class Backend(Protocol):
    """What a backend offers. ``values`` is [E, ...]; sums are [num_segments, ...]; an empty segment gives 0."""

    @staticmethod
    def available() -> str | None:
        """None where it can be used here, else the reason why not."""

    @staticmethod
    def supports(values: Tensor) -> bool:
        """Whether it takes this device and dtype and is worth choosing for it."""

    @staticmethod
    def segment_sum(values: Tensor, segments: Segments) -> Tensor:
        """Sum of the rows of each segment."""

    @staticmethod
    def segment_max(values: Tensor, segments: Segments) -> Tensor:
        """Largest row, entry by entry, of each segment."""


class TensorProducts(Protocol):
    """What a backend offers besides, if it does: see ``geoeq.kernels.tensor_product`` for shapes."""

    @staticmethod
    def available() -> str | None:
        """None where it can be used here, else the reason why not."""

    @staticmethod
    def supports(values: Tensor) -> bool:
        """Whether it takes this device and dtype and is worth choosing for it."""

    @staticmethod
    def tensor_product(x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
        """The product of each row, block by block."""

    @staticmethod
    def tensor_product_linear(
        x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """The product of each row, then a linear map of each block."""

    @staticmethod
    def tensor_product_conv(
        x: Tensor, harmonics: Tensor, weights: Tensor, sender: Tensor, receivers: Segments, paths: Paths
    ) -> Tensor:
        """Gather, product and sum at the receiver."""


@dataclass(frozen=True)
class BackendStatus:
    """One line of ``geoeq doctor``: a backend, and why it cannot be used (None where it can)."""

    name: str
    reason: str | None

    @property
    def available(self) -> bool:
        return self.reason is None


_BACKENDS: dict[str, type[Backend]] = {}
_TENSOR_PRODUCTS: dict[str, type[TensorProducts]] = {}
# A plain list, the last entry in force: torch.compile reads neither ContextVar nor threading.local.
_forced: list[str] = []


def register(name: str, backend: type[Backend]) -> None:
    """Enter a backend in the table; the first that is available and supports the values is chosen."""
    _BACKENDS[name] = backend


def register_tensor_products(name: str, backend: type[TensorProducts]) -> None:
    """Enter the tensor products of the backend ``name``; one that has none leaves them to the reference."""
    _TENSOR_PRODUCTS[name] = backend


def report() -> list[BackendStatus]:
    """Every backend in order of preference, and the reason of those that cannot be used here."""
    return [BackendStatus(name, backend.available()) for name, backend in _BACKENDS.items()]


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Force the backend ``name`` within a ``with`` block, for the whole process (as torch's own flags are).

    Raises:
        BackendError: it is unknown, or not available here; the message says why.
    """
    if name not in _BACKENDS:
        raise BackendError(unknown_name("kernel backend", name, _BACKENDS))
    reason = _BACKENDS[name].available()
    if reason is not None:
        raise BackendError(f"The kernel backend '{name}' cannot be used here: {reason}")
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def choose(values: Tensor) -> type[Backend]:
    """The backend for these values: the forced one, or the first that is available and supports them."""
    if _forced:
        return _BACKENDS[_forced[-1]]
    for backend in _BACKENDS.values():
        if backend.available() is None and backend.supports(values):
            return backend
    raise BackendError(f"No kernel backend takes {values.dtype} on {values.device.type}.")


def choose_tensor_products(values: Tensor) -> type[TensorProducts]:
    """As ``choose``, for tensor products; a forced backend that has none leaves them to the reference."""
    if _forced:
        return _TENSOR_PRODUCTS.get(_forced[-1], _TENSOR_PRODUCTS["reference"])
    for backend in _TENSOR_PRODUCTS.values():
        if backend.available() is None and backend.supports(values):
            return backend
    raise BackendError(f"No kernel backend takes {values.dtype} on {values.device.type}.")
