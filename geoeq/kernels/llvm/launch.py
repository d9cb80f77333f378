"""Kernels by what they are made for, and their rows shared among threads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geoeq.errors import TensorError
from geoeq.kernels.llvm.compiler import compiled, lanes
from geoeq.kernels.llvm.kernel import Kernel
from geoeq.kernels.llvm.openmp import run_with_openmp
from geoeq.kernels.llvm.threads import in_threads, shares
from geoeq.kernels.segments import EdgeTensors

__all__ = ["SCALARS", "check_senders", "even_bounds", "kernel_of", "node_bounds", "run"]

SCALARS = {torch.float32: "float", torch.float64: "double"}

#: Numbers of edges (channels of paths, mostly) below which a second thread costs more than it takes over: some 20 µs.
_SMALLEST = 20_000


@functools.cache
def kernel_of(make: Callable[..., Kernel], *options: object, dtype: torch.dtype, widest: int | None = None) -> Kernel:
    """The kernel ``make(*options, scalar, lanes)``; no lane is idle where a row has ``widest`` numbers."""
    most = lanes(dtype.itemsize)
    if widest is not None:
        most = min(most, 1 << max(widest - 1, 1).bit_length())
    return make(*options, scalar=SCALARS[dtype], lanes=most)


def run(kernel: Kernel, tensors: Sequence[Tensor | int], rows: int, bounds: Sequence[int]) -> None:
    """The kernel with these tensors (or addresses), of ``rows`` rows those between the bounds."""
    addresses = [tensor if isinstance(tensor, int) else tensor.data_ptr() for tensor in tensors]
    function = compiled(kernel)
    if len(bounds) == 2:
        function(*addresses, rows, *bounds)
    elif not run_with_openmp(kernel, addresses, rows, bounds):
        in_threads(lambda first, last: function(*addresses, rows, first, last), bounds)


def even_bounds(rows: int, width: int) -> list[int]:
    """Rows with ``width`` numbers each, in pieces of about as many."""
    pieces = shares(rows * width, _SMALLEST)
    return [rows * n // pieces for n in range(pieces + 1)]


def node_bounds(pointers: Tensor, width: int) -> list[int]:
    """Nodes in pieces of about as many edges, with ``width`` numbers each."""
    nodes, steps = pointers.shape[0] - 1, even_bounds(int(pointers[-1]), width)[1:-1]
    if not steps:
        return [0, nodes]
    inner = torch.searchsorted(pointers, torch.tensor(steps, dtype=pointers.dtype)).clamp(max=nodes).tolist()
    return [0, *inner, nodes]


def check_senders(edges: EdgeTensors, count: int) -> None:
    """A kernel would read beyond the features without a word."""
    if edges.sender.numel():
        lowest, highest = (int(end) for end in edges.sender.aminmax())
        if lowest < 0 or highest >= count:
            raise TensorError(
                f"The senders lie between {lowest} and {highest}; with {count} nodes they must lie between 0 "
                f"and {count - 1}."
            )
