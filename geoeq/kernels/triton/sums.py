"""Weighted sums at receivers, the second half of attention, and the softmax over edges, which is the first."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.kernels.backend import Blocks
from geoeq.kernels.triton.compiler import launch
from geoeq.kernels.triton.kernel import Kernel
from geoeq.kernels.triton.softmax_kernels import softmax_gradient_kernel, softmax_kernel
from geoeq.kernels.triton.sum_kernels import sum_by_values_kernel, sum_by_weights_kernel, sum_kernel
from geoeq.kernels.triton.tiles import SCALARS

__all__ = ["Sums", "softmaxes", "sums"]


@functools.cache
def sums(blocks: Blocks, heads: int, dtype: torch.dtype) -> tuple[Kernel, Kernel, Kernel]:
    """The kernels of the sum, and of its derivatives by values and by weights."""
    scalar = SCALARS[dtype]
    return (
        sum_kernel(blocks, heads, scalar),
        sum_by_values_kernel(blocks, heads, scalar),
        sum_by_weights_kernel(blocks, heads, scalar),
    )


@functools.cache
def softmaxes(heads: int, dtype: torch.dtype) -> tuple[Kernel, Kernel]:
    """The kernels of the softmax and of its derivative."""
    return softmax_kernel(heads, SCALARS[dtype]), softmax_gradient_kernel(heads, SCALARS[dtype])


class Sums:
    """Those of ``FusedKernels``."""

    @staticmethod
    def weighted_sum(values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, blocks: Blocks) -> Tensor:
        """``out_nd = Σ_e weights_e,head(d) values_ed`` over the edges e into node n."""
        nodes = row_pointers.shape[0] - 1
        out = values.new_empty(nodes, values.shape[1])
        kernel = sums(blocks, weights.shape[1], values.dtype)[0]
        launch(kernel, nodes, (values, weights, row_pointers, out))
        return out

    @staticmethod
    def weighted_sum_gradients(
        values: Tensor,
        weights: Tensor,
        g: Tensor,
        receiver: Tensor,
        row_pointers: Tensor,
        blocks: Blocks,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, Tensor]:
        """The derivatives by values and by weights; those that are not ``wanted`` are empty."""
        count, (_, by_values, by_weights) = values.shape[0], sums(blocks, weights.shape[1], values.dtype)
        found = [torch.empty_like(of) if want else of.new_empty(0) for of, want in zip((values, weights), wanted)]
        if wanted[0]:
            launch(by_values, count, (weights, g, receiver, found[0], count))
        if wanted[1]:
            launch(by_weights, count, (values, g, receiver, found[1], count))
        return found[0], found[1]

    @staticmethod
    def segment_softmax(scores: Tensor, receiver: Tensor, row_pointers: Tensor) -> Tensor:
        """Softmax over the edges into each node, for each head."""
        out = torch.empty_like(scores)
        kernel, _ = softmaxes(scores.shape[1], scores.dtype)
        launch(kernel, row_pointers.shape[0] - 1, (scores, row_pointers, out))
        return out

    @staticmethod
    def segment_softmax_gradient(softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor) -> Tensor:
        """The derivative by the scores, of the softmax and its cotangent. All [E, H], as of ``segment_softmax``."""
        out = torch.empty_like(softmax)
        _, kernel = softmaxes(softmax.shape[1], softmax.dtype)
        launch(kernel, row_pointers.shape[0] - 1, (softmax, cotangent, row_pointers, out))
        return out
