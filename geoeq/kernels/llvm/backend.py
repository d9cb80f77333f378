"""Tensor products on the CPU: kernels that are written and compiled for the paths at hand."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from geoeq.errors import TensorError
from geoeq.kernels.backend import EdgeTensors
from geoeq.kernels.llvm.compiler import compiled, lanes, unavailable
from geoeq.kernels.llvm.memory import empty
from geoeq.kernels.llvm.tensor_product import Kernel, edge_kernel, receiver_kernel, sender_kernel
from geoeq.kernels.llvm.threads import in_threads, shares
from geoeq.kernels.paths import Paths

__all__ = ["LLVM"]

_SCALARS = {torch.float32: "float", torch.float64: "double"}

#: Channels of paths (as many as weights) below which a second thread costs more than it takes over: some 20 µs.
_SMALLEST = 20_000


@functools.cache
def _function(make: Callable[..., Kernel], paths: Paths, dtype: torch.dtype, *options: bool) -> Callable[..., None]:
    return compiled(make(paths, _SCALARS[dtype], lanes(dtype.itemsize), *options))


def _run(function: Callable[..., None], tensors: tuple[Tensor, ...], rows: int, bounds: list[int]) -> None:
    addresses = [tensor.data_ptr() for tensor in tensors]
    in_threads(lambda first, last: function(*addresses, rows, first, last), bounds)


def _row_bounds(pointers: Tensor, work: int) -> list[int]:
    """Rows in pieces of about as many edges each."""
    rows, pieces = pointers.shape[0] - 1, shares(work, _SMALLEST)
    if pieces == 1:
        return [0, rows]
    total = int(pointers[-1])
    steps = torch.tensor([total * n // pieces for n in range(1, pieces)])
    inner = torch.searchsorted(pointers, steps).clamp(max=rows).tolist()
    return [0, *inner, rows]


def _work(edges: EdgeTensors, paths: Paths) -> int:
    return edges.sender.shape[0] * paths.weight_numel


def _check_senders(edges: EdgeTensors) -> None:
    """A kernel would read beyond the features without a word."""
    if edges.sender.numel():
        lowest, highest = (int(end) for end in edges.sender.aminmax())
        if lowest < 0 or highest >= edges.num_nodes:
            raise TensorError(
                f"The senders lie between {lowest} and {highest}; with {edges.num_nodes} nodes they must lie between 0 "
                f"and {edges.num_nodes - 1}."
            )


class LLVM:
    """The contractions of ``geoeq.kernels.contractions``: nothing of an edge's size is written but what is asked for.

    A receiver's messages are summed by one thread in the order of its edges: the result does not depend on the number
    of threads, nor change from run to run.
    """

    @staticmethod
    def available() -> str | None:
        return unavailable()

    @staticmethod
    def supports(values: Tensor) -> bool:
        return values.device.type == "cpu" and values.dtype in _SCALARS

    @staticmethod
    def takes(paths: Paths) -> bool:
        return all(path.mode == "uvu" for path in paths.paths)

    @staticmethod
    def conv(x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        _check_senders(edges)
        out = empty(x, paths.out_shape(x.shape[0]))
        function = _function(receiver_kernel, paths, x.dtype, weights.numel() > 0)
        tensors = (x, harmonics, weights, edges.sender, edges.row_pointers, out)
        _run(function, tensors, edges.num_nodes, _row_bounds(edges.row_pointers, _work(edges, paths)))
        return out

    @staticmethod
    def grad_x(g: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        order, pointers = edges.by_sender()
        x = empty(g, (edges.num_nodes, paths.x_dim))
        function = _function(sender_kernel, paths, g.dtype, weights.numel() > 0)
        tensors = (g, harmonics, weights, edges.receiver, order, pointers, x)
        _run(function, tensors, edges.num_nodes, _row_bounds(pointers, _work(edges, paths)))
        return x

    @staticmethod
    def grad_edges(
        x: Tensor,
        harmonics: Tensor,
        weights: Tensor,
        g: Tensor,
        edges: EdgeTensors,
        paths: Paths,
        by_harmonics: bool,
        by_weights: bool,
    ) -> tuple[Tensor, Tensor]:
        found = (
            empty(harmonics, harmonics.shape) if by_harmonics else harmonics.new_empty(0),
            empty(weights, weights.shape) if by_weights else weights.new_empty(0),
        )
        function = _function(edge_kernel, paths, x.dtype, weights.numel() > 0, by_harmonics, by_weights)
        pieces, count = shares(_work(edges, paths), _SMALLEST), harmonics.shape[0]
        bounds = [count * n // pieces for n in range(pieces + 1)]
        tensors = (x, harmonics, weights, g, edges.sender, edges.receiver, *found)
        _run(function, tensors, edges.num_nodes, bounds)
        return found
