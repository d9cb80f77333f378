"""Weighted sums at receivers and the softmax of attention: operators of PyTorch over the kernels of a fused backend.

With a head h(d) for each column d of the values::

    out[n, d] = Σ_e w[e, h(d)] v[e, d]                      over the edges e into node n: linear in both factors

    a[e, h] = exp(s[e, h]) / Σ_f exp(s[f, h])               over the edges f into the same node
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from geoeq.kernels.backend import registered
from geoeq.kernels.backends.reference import Backend
from geoeq.kernels.operators.multilinear import multilinear
from geoeq.kernels.segments import Blocks, Segments

__all__ = ["FusedSums", "SumKernels"]


class SumKernels(Protocol):
    """Kernels of sums over the edges into a node, and their derivatives.

    All tensors are contiguous, and all floating-point tensors have one dtype. ``wanted`` selects the gradients to
    compute; the others are returned empty.

    Shapes:
        values: [E, D], blocks side by side. weights: [E, H]. g: [N, D]. receiver: [E], sorted. row_pointers: [N + 1].
        scores, softmax, cotangent: [E, H].
    """

    def weighted_sum(
        self, values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, blocks: Blocks
    ) -> Tensor:
        """Return ``Σ_e weights values`` over the edges into each node, [N, D]."""

    def weighted_sum_gradients(
        self, values: Tensor, weights: Tensor, g: Tensor, receiver: Tensor, blocks: Blocks, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of ``weighted_sum`` with respect to values and weights."""

    def segment_softmax(self, scores: Tensor, receiver: Tensor, row_pointers: Tensor) -> Tensor:
        """Return the softmax over the edges into each node, [E, H]."""

    def segment_softmax_gradient(
        self, softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor
    ) -> Tensor:
        """Return ``a (c - Σ a c)`` for the softmax a and its cotangent c, summed over the edges into the same node."""


class FusedSums(Backend):
    """Weighted sums and softmax by fused kernels if rows are sorted by segment, else in plain PyTorch.

    Attributes:
        kernels: the kernels.
        smallest_sum, smallest_softmax: number of entries below which plain PyTorch is as fast.
    """

    kernels: SumKernels
    smallest_sum: int = 0
    smallest_softmax: int = 0

    def weighted_sum(self, values: Tensor, weights: Tensor, segments: Segments, blocks: Blocks) -> Tensor:
        if segments.row_pointers is None or _is_small(values, self.smallest_sum):
            return super().weighted_sum(values, weights, segments, blocks)
        dtype = torch.promote_types(values.dtype, weights.dtype)  # they differ under autocast
        flat = [number for block in blocks for number in block]
        factors = values.to(dtype), weights.to(dtype)
        return _sum_operator(*factors, segments.index, segments.row_pointers, flat, self.name)

    def segment_softmax(self, values: Tensor, segments: Segments) -> Tensor:
        if segments.row_pointers is None or not values.numel() or _is_small(values, self.smallest_softmax):
            return super().segment_softmax(values, segments)
        flat = values.unsqueeze(1) if values.dim() == 1 else values.flatten(1)
        result: Tensor = _softmax(flat, segments.index, segments.row_pointers, self.name).view(values.shape)
        return result


def _is_small(values: Tensor, smallest: int) -> bool:
    return not torch.compiler.is_compiling() and values.numel() < smallest


def _kernels(backend: str) -> SumKernels:
    return registered(backend, FusedSums).kernels


def _blocks(flat: Sequence[int]) -> Blocks:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _sum(values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, flat: Any, backend: str) -> Tensor:
    return _kernels(backend).weighted_sum(values, weights, receiver, row_pointers, _blocks(flat))


def _sum_gradients(values: Tensor, weights: Tensor, g: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    receiver, _, flat, backend, wanted = rest
    return _kernels(backend).weighted_sum_gradients(values, weights, g, receiver, _blocks(flat), wanted)


def _sum_shape(values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, *_: Any) -> tuple[int, ...]:
    return row_pointers.shape[0] - 1, values.shape[1]


_REST = ("Tensor receiver", "Tensor row_pointers", "int[] blocks", "str backend")
_sum_operator = multilinear("weighted_sum", ("values", "weights"), _REST, _sum, _sum_gradients, _sum_shape)


@torch.library.custom_op("geoeq::segment_softmax", mutates_args=())
def _softmax(scores: Tensor, receiver: Tensor, row_pointers: Tensor, backend: str) -> Tensor:
    return _kernels(backend).segment_softmax(scores.contiguous(), receiver, row_pointers)


@torch.library.custom_op("geoeq::segment_softmax_gradient", mutates_args=())
def _softmax_gradient(
    softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor, backend: str
) -> Tensor:
    factors = softmax.contiguous(), cotangent.contiguous()
    return _kernels(backend).segment_softmax_gradient(*factors, receiver, row_pointers)


@_softmax.register_fake
def _(scores: Tensor, receiver: Tensor, row_pointers: Tensor, backend: str) -> Tensor:
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


@_softmax_gradient.register_fake
def _(softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor, backend: str) -> Tensor:
    return torch.empty_like(softmax, memory_format=torch.contiguous_format)


def _save_result(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, receiver, row_pointers, ctx.backend = inputs
    ctx.save_for_backward(output, receiver, row_pointers)


def _softmax_backward(ctx, cotangent):  # type: ignore[no-untyped-def]
    softmax, *rows = ctx.saved_tensors
    return _softmax_gradient(softmax, cotangent, *rows, ctx.backend), None, None, None


def _save_inputs(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _gradient_backward(ctx, u):  # type: ignore[no-untyped-def]
    """Differentiate ``a (c - Σ a c)`` in plain PyTorch, which provides the derivatives of higher order."""
    softmax, cotangent, receiver, row_pointers = ctx.saved_tensors
    segments, reference = Segments(receiver, row_pointers.shape[0] - 1, row_pointers), Backend()

    def mean(values: Tensor) -> Tensor:
        return reference.segment_sum(softmax * values, segments).index_select(0, receiver)

    mean_u, mean_cotangent = mean(u), mean(cotangent)
    by_softmax = u * (cotangent - mean_cotangent) - cotangent * mean_u
    return by_softmax, softmax * (u - mean_u), None, None, None


_softmax.register_autograd(_softmax_backward, setup_context=_save_result)
_softmax_gradient.register_autograd(_gradient_backward, setup_context=_save_inputs)
