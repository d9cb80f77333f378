"""Kernels by their parameters, and their launch on as many threads as PyTorch uses."""

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

#: Number of entries (mostly channels of paths) below which a second thread costs more than it saves, about 20 µs.
_SMALLEST = 20_000


@functools.cache
def kernel_of(make: Callable[..., Kernel], *options: object, dtype: torch.dtype, widest: int | None = None) -> Kernel:
    """Return the kernel ``make(*options, scalar, lanes)``, without idle lanes if rows have only ``widest`` entries."""
    most = lanes(dtype.itemsize)
    if widest is not None:
        most = min(most, 1 << max(widest - 1, 1).bit_length())
    return make(*options, scalar=SCALARS[dtype], lanes=most)


def run(kernel: Kernel, tensors: Sequence[Tensor | int], rows: int, bounds: Sequence[int]) -> None:
    """Run the kernel with these tensors (or addresses), which have ``rows`` rows, on the rows between the bounds."""
    addresses = [tensor if isinstance(tensor, int) else tensor.data_ptr() for tensor in tensors]
    function = compiled(kernel)
    if len(bounds) == 2:
        function(*addresses, rows, *bounds)
    elif not run_with_openmp(kernel, addresses, rows, bounds):
        in_threads(lambda first, last: function(*addresses, rows, first, last), bounds)


def even_bounds(rows: int, width: int) -> list[int]:
    """Divide rows of ``width`` entries into pieces of about equal numbers of rows."""
    pieces = shares(rows * width, _SMALLEST)
    return [rows * n // pieces for n in range(pieces + 1)]


def node_bounds(pointers: Tensor, width: int) -> list[int]:
    """Divide nodes into pieces of about equal numbers of edges, each edge with ``width`` entries."""
    nodes, steps = pointers.shape[0] - 1, even_bounds(int(pointers[-1]), width)[1:-1]
    if not steps:
        return [0, nodes]
    inner = torch.searchsorted(pointers, torch.tensor(steps, dtype=pointers.dtype)).clamp(max=nodes).tolist()
    return [0, *inner, nodes]


def check_senders(edges: EdgeTensors, count: int) -> None:
    """Check that senders are among ``count`` nodes; a kernel would silently read beyond the features.

    Raises:
        TensorError: a sender is out of range.
    """
    if edges.sender.numel():
        lowest, highest = (int(end) for end in edges.sender.aminmax())
        if lowest < 0 or highest >= count:
            raise TensorError(
                f"The senders lie between {lowest} and {highest}; with {count} nodes they must lie between 0 "
                f"and {count - 1}."
            )
