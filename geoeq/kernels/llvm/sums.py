"""Weighted sums at receivers, and the softmax over the edges into a node, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.kernels.llvm.launch import even_bounds, kernel_of, node_bounds, run
from geoeq.kernels.llvm.memory import empty
from geoeq.kernels.llvm.sum_kernels import softmax_gradient_kernel, softmax_kernel, sum_edge_kernel, sum_kernel
from geoeq.kernels.segments import Blocks

__all__ = ["Sums"]

#: Entries of a sum that take as long as one channel of a path.
_QUICK = 8


class Sums:
    """``SumKernels`` for the CPU."""

    def weighted_sum(
        self, values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, blocks: Blocks
    ) -> Tensor:
        nodes, width = row_pointers.shape[0] - 1, values.shape[1]
        out = empty(values, (nodes, width))
        kernel = kernel_of(sum_kernel, blocks, weights.shape[1], dtype=values.dtype, widest=width)
        run(kernel, (values, weights, row_pointers, out), nodes, node_bounds(row_pointers, -(-width // _QUICK)))
        return out

    def weighted_sum_gradients(
        self, values: Tensor, weights: Tensor, g: Tensor, receiver: Tensor, blocks: Blocks, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        by_values, by_weights = wanted
        rows, width = values.shape
        gradients = (
            empty(values, values.shape) if by_values else values.new_empty(0),
            torch.empty_like(weights) if by_weights else weights.new_empty(0),
        )
        options = blocks, weights.shape[1], by_values, by_weights
        kernel = kernel_of(sum_edge_kernel, *options, dtype=values.dtype, widest=width)
        run(kernel, (values, weights, g, receiver, *gradients), rows, even_bounds(rows, -(-width // _QUICK)))
        return gradients

    def segment_softmax(self, scores: Tensor, receiver: Tensor, row_pointers: Tensor) -> Tensor:
        out, heads = torch.empty_like(scores), scores.shape[1]
        kernel = kernel_of(softmax_kernel, heads, dtype=scores.dtype, widest=heads)
        run(kernel, (scores, row_pointers, out), len(scores), node_bounds(row_pointers, heads))
        return out

    def segment_softmax_gradient(
        self, softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor
    ) -> Tensor:
        out, heads = torch.empty_like(softmax), softmax.shape[1]
        kernel = kernel_of(softmax_gradient_kernel, heads, dtype=softmax.dtype, widest=heads)
        run(kernel, (softmax, cotangent, row_pointers, out), len(softmax), node_bounds(row_pointers, heads))
        return out
