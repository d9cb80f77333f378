"""The Backend contract, and how one is chosen."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from geoeq.errors import BackendError, unknown_name
from geoeq.kernels.paths import Paths
from geoeq.pointers import sorted_by

__all__ = [
    "Backend",
    "BackendStatus",
    "Blocks",
    "EdgeTensors",
    "Segments",
    "choose",
    "decomposed",
    "register",
    "report",
    "use",
]


#: (rows, channels) of blocks that lie side by side in a row of a tensor.
Blocks = tuple[tuple[int, int], ...]


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


@dataclass(frozen=True)
class EdgeTensors:
    """Where edges begin and end, sorted by receiver.

    Attributes:
        sender, receiver: [E] int64.
        row_pointers: [N + 1] int64; the edges into node n are row_pointers[n] to row_pointers[n + 1].
        order, pointers: edges by sender, [E], and where those of each begin in it, [N + 1]; empty if not known yet
            (then those that send and those that receive are the same nodes).
    """

    sender: Tensor
    receiver: Tensor
    row_pointers: Tensor
    order: Tensor
    pointers: Tensor

    @property
    def num_nodes(self) -> int:
        """Number N of nodes that receive."""
        return self.row_pointers.shape[0] - 1

    @classmethod
    def from_edges(cls, receiver: Tensor, row_pointers: Tensor) -> EdgeTensors:
        """Every edge is its own sender: what it sends has a row for each edge."""
        pointers = torch.arange(receiver.shape[0] + 1, device=receiver.device)
        return cls(pointers[:-1], receiver, row_pointers, pointers[:-1], pointers)

    def by_sender(self) -> tuple[Tensor, Tensor]:
        """Order and pointers, found if they are not known."""
        return (self.order, self.pointers) if self.pointers.numel() else sorted_by(self.sender, self.num_nodes)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """All of them, as they are given to the constructor."""
        return self.sender, self.receiver, self.row_pointers, self.order, self.pointers


class Backend(Protocol):
    """What a backend offers.

    In sums ``values`` is [E, ...] and results are [num_segments, ...]; an empty segment gives 0. For the shapes of
    tensor products see ``geoeq.kernels.backends.plain_products`` and those that follow there.
    """

    @staticmethod
    def available() -> str | None:
        """None where it can be used here, else the reason why not."""

    @staticmethod
    def supports(values: Tensor) -> bool:
        """Whether it is meant for this device and dtype, and is to be chosen for them where it is available."""

    @staticmethod
    def segment_sum(values: Tensor, segments: Segments) -> Tensor:
        """Sum of the rows of each segment."""

    @staticmethod
    def segment_max(values: Tensor, segments: Segments) -> Tensor:
        """Largest row, entry by entry, of each segment."""

    @staticmethod
    def segment_softmax(values: Tensor, segments: Segments) -> Tensor:
        """Softmax over the rows of each segment, entry by entry."""

    @staticmethod
    def weighted_sum(values: Tensor, weights: Tensor, segments: Segments, blocks: Blocks) -> Tensor:
        """Sum of the rows of each segment, each times its weights, of which each head has one."""

    @staticmethod
    def tensor_product(x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
        """The product of each row, block by block."""

    @staticmethod
    def tensor_product_linear(
        x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """The product of each row, then a linear map of each block."""

    @staticmethod
    def attended_product(
        x: Tensor, harmonics: Tensor, weights: Tensor, edges: Segments, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """The product of each row, a linear map of each block, and the weighted sum of each segment."""

    @staticmethod
    def tensor_product_conv(x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        """Gather, product and sum at the receiver."""

    @staticmethod
    def radial_tensor_product_conv(
        x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        """The same with the weights ``hidden @ matrix``."""


@dataclass(frozen=True)
class BackendStatus:
    """One line of ``geoeq doctor``: a backend, and why it cannot be used (None where it can)."""

    name: str
    reason: str | None

    @property
    def available(self) -> bool:
        return self.reason is None


_BACKENDS: dict[str, type[Backend]] = {}
# A plain list, the last entry in force: torch.compile reads neither ContextVar nor threading.local.
_forced: list[str] = []


def register(name: str, backend: type[Backend]) -> None:
    """Enter a backend in the table; the first that is available and supports the values is chosen."""
    _BACKENDS[name] = backend


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


def decomposed() -> bool:
    """Whether a graph is traced for export that is to hold operators of PyTorch alone: with the reference forced."""
    tracing = torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    return tracing and _forced[-1:] == ["reference"]


def choose(values: Tensor) -> type[Backend]:
    """The backend for these values: the forced one, or the first that supports them and is available.

    Warns, once, of one that is passed over because something is missing.
    """
    if _forced:
        return _BACKENDS[_forced[-1]]
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        return _BACKENDS["reference"]  # operators of our own have no rules for vmap, jacrev and the like
    for name, backend in _BACKENDS.items():
        if backend.supports(values) and _usable(name):
            return backend
    raise BackendError(f"No kernel backend takes {values.dtype} on {values.device.type}.")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # looking may load a library
def _usable(name: str) -> bool:
    return _looked_up(name)


@functools.cache
def _looked_up(name: str) -> bool:
    reason = _BACKENDS[name].available()
    if reason is not None:
        warnings.warn(f"The kernel backend '{name}' is not used, a slower one is: {reason}", stacklevel=2)
    return reason is None
