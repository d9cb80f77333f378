"""Weighted sums at receivers, and the softmax over the edges into a node, on NVIDIA GPUs."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.kernels.segments import Blocks
from geoeq.kernels.triton.compiler import launch
from geoeq.kernels.triton.kernel import Kernel
from geoeq.kernels.triton.sum_kernels import (
    softmax_gradient_kernel,
    softmax_kernel,
    sum_by_values_kernel,
    sum_by_weights_kernel,
    sum_kernel,
)
from geoeq.kernels.triton.tiles import SCALARS

__all__ = ["Sums", "softmaxes", "sums"]


@functools.cache
def sums(blocks: Blocks, heads: int, dtype: torch.dtype) -> tuple[Kernel, Kernel, Kernel]:
    """Return the kernels of the weighted sum and of its gradients with respect to values and weights."""
    scalar = SCALARS[dtype]
    return (
        sum_kernel(blocks, heads, scalar),
        sum_by_values_kernel(blocks, heads, scalar),
        sum_by_weights_kernel(blocks, heads, scalar),
    )


@functools.cache
def softmaxes(heads: int, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """Return the kernels of the softmax and of its gradient."""
    return softmax_kernel(heads, SCALARS[dtype]), softmax_gradient_kernel(heads, SCALARS[dtype])


class Sums:
    """``SumKernels`` for NVIDIA GPUs."""

    def weighted_sum(
        self, values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, blocks: Blocks
    ) -> Tensor:
        nodes = row_pointers.shape[0] - 1
        out = values.new_empty(nodes, values.shape[1])
        kernel = sums(blocks, weights.shape[1], values.dtype)[0]
        launch(kernel, nodes, (values, weights, row_pointers, out))
        return out

    def weighted_sum_gradients(
        self, values: Tensor, weights: Tensor, g: Tensor, receiver: Tensor, blocks: Blocks, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        count, (_, by_values, by_weights) = values.shape[0], sums(blocks, weights.shape[1], values.dtype)
        pairs = zip((values, weights), wanted, strict=True)
        grad_values, grad_weights = (torch.empty_like(like) if want else like.new_empty(0) for like, want in pairs)
        if wanted[0]:
            launch(by_values, count, (weights, g, receiver, grad_values, count))
        if wanted[1]:
            launch(by_weights, count, (values, g, receiver, grad_weights, count))
        return grad_values, grad_weights

    def segment_softmax(self, scores: Tensor, receiver: Tensor, row_pointers: Tensor) -> Tensor:
        out = torch.empty_like(scores)
        kernel, _ = softmaxes(scores.shape[1], scores.dtype)
        launch(kernel, row_pointers.shape[0] - 1, (scores, row_pointers, out))
        return out

    def segment_softmax_gradient(
        self, softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor
    ) -> Tensor:
        out = torch.empty_like(softmax)
        _, kernel = softmaxes(softmax.shape[1], softmax.dtype)
        launch(kernel, row_pointers.shape[0] - 1, (softmax, cotangent, row_pointers, out))
        return out
