"""Convolutions on the CPU, with weights that are given or made some edges at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from geoeq.kernels.backend import EdgeTensors
from geoeq.kernels.llvm.launch import check_senders, even_bounds, function_of, node_bounds, run
from geoeq.kernels.llvm.memory import empty
from geoeq.kernels.llvm.product_kernels import edge_kernel, receiver_kernel, sender_kernel
from geoeq.kernels.paths import Paths

__all__ = ["Convolutions"]

#: Bytes of the weights that are made at a time: they stay in a cache, and matrix products are large enough.
_WEIGHTS = 2 * 2**20


def _edges_at_once(matrix: Tensor) -> int:
    return max(64, _WEIGHTS // (matrix.shape[1] * matrix.element_size()))


def _before(buffer: Tensor, row: int) -> int:
    """The address of row 0 of a tensor whose row ``row`` is the first of the buffer."""
    return buffer.data_ptr() - row * buffer.shape[1] * buffer.element_size()


def _receivers_at_once(pointers: Tensor, size: int) -> Iterator[tuple[int, int, int, int]]:
    """First and last receiver and edge of pieces of ``size`` edges or fewer, but for receivers that have more."""
    starts: list[int] = pointers.tolist()
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, bisect_right(starts, starts[first] + size) - 1)
        yield first, last, starts[first], starts[last]
        first = last


class Convolutions:
    """Those of ``FusedKernels``."""

    @staticmethod
    def conv(x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        check_senders(edges)
        out = empty(x, paths.out_shape(x.shape[0]))
        function = function_of(receiver_kernel, paths, weights.numel() > 0, dtype=x.dtype)
        tensors = (x, harmonics, weights, edges.sender, edges.row_pointers, out)
        run(function, tensors, edges.num_nodes, node_bounds(edges.row_pointers, paths.weight_numel))
        return out

    @staticmethod
    def grad_x(g: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        order, pointers = edges.by_sender()
        x = empty(g, (edges.num_nodes, paths.x_dim))
        function = function_of(sender_kernel, paths, weights.numel() > 0, dtype=g.dtype)
        tensors = (g, harmonics, weights, edges.receiver, order, pointers, x)
        run(function, tensors, edges.num_nodes, node_bounds(pointers, paths.weight_numel))
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
        function = function_of(edge_kernel, paths, weights.numel() > 0, by_harmonics, by_weights, dtype=x.dtype)
        tensors = (x, harmonics, weights, g, edges.sender, edges.receiver, *found)
        run(function, tensors, edges.num_nodes, even_bounds(0, len(harmonics), paths.weight_numel))
        return found

    @staticmethod
    def radial_conv(
        x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        """Weights are made for the edges of some receivers, and used while they are in a cache."""
        check_senders(edges)
        out = empty(x, paths.out_shape(x.shape[0]))
        pieces = list(_receivers_at_once(edges.row_pointers, _edges_at_once(matrix)))
        room = x.new_empty(max((end - begin for *_, begin, end in pieces), default=0), matrix.shape[1])
        function = function_of(receiver_kernel, paths, True, dtype=x.dtype)
        for first, last, begin, end in pieces:
            torch.mm(hidden[begin:end], matrix, out=room[: end - begin])
            tensors = (x, harmonics, _before(room, begin), edges.sender, edges.row_pointers, out)
            bounds = node_bounds(edges.row_pointers, paths.weight_numel, first, last)
            run(function, tensors, edges.num_nodes, bounds)
        return out

    @staticmethod
    def radial_gradients(
        x: Tensor,
        harmonics: Tensor,
        hidden: Tensor,
        matrix: Tensor,
        g: Tensor,
        edges: EdgeTensors,
        paths: Paths,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, their derivatives and the messages back to senders exist for some edges at a time.

        Messages are added at the senders in the order of the edges.
        """
        by_x, by_harmonics, by_hidden, by_matrix = wanted
        by_weights, count = by_hidden or by_matrix, len(harmonics)
        found = (
            x.new_zeros(x.shape) if by_x else x.new_empty(0),
            empty(harmonics, harmonics.shape) if by_harmonics else harmonics.new_empty(0),
            empty(hidden, hidden.shape) if by_hidden else hidden.new_empty(0),
            torch.zeros_like(matrix) if by_matrix else matrix.new_empty(0),
        )
        size = min(_edges_at_once(matrix), count)
        room, changes = x.new_empty(2, size, matrix.shape[1])
        back = x.new_empty(size if by_x else 0, paths.x_dim)
        own = torch.arange(count + 1 if by_x else 0)
        to_x = function_of(sender_kernel, paths, True, dtype=x.dtype)
        of_edges = function_of(edge_kernel, paths, True, by_harmonics, by_weights, dtype=x.dtype)
        for begin in range(0, count, max(size, 1)):
            end = min(begin + size, count)
            weights, changed = room[: end - begin], changes[: end - begin]
            bounds = even_bounds(begin, end, paths.weight_numel)
            if by_x or by_harmonics:
                torch.mm(hidden[begin:end], matrix, out=weights)
            if by_harmonics or by_weights:
                ends = edges.sender, edges.receiver
                results = found[1], _before(changes, begin)
                run(of_edges, (x, harmonics, _before(room, begin), g, *ends, *results), edges.num_nodes, bounds)
            if by_hidden:
                torch.mm(changed, matrix.T, out=found[2][begin:end])
            if by_matrix:
                found[3].addmm_(hidden[begin:end].T, changed)
            if by_x:  # every edge is a sender of its own
                places = edges.receiver, own, own, _before(back, begin)
                run(to_x, (g, harmonics, _before(room, begin), *places), edges.num_nodes, bounds)
                found[0].index_add_(0, edges.sender[begin:end], back[: end - begin])
        return found
