"""Weighted sums at receivers, and the softmax that attention takes its weights from, as operators of PyTorch.

With a head h(d) for each column d of the values::

    out[n, d] = Σ_e w[e, h(d)] v[e, d]                      over the edges e into node n: linear in both

    a[e, h] = exp(s[e, h]) / Σ_f exp(s[f, h])               over the edges f into the same node
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geoeq.kernels.backend import Blocks, Segments
from geoeq.kernels.backends.reference import Reference
from geoeq.kernels.fused_kernels import kernels_of
from geoeq.kernels.operators.multilinear import multilinear

__all__ = ["fused_softmax", "fused_weighted_sum"]


def _blocks(flat: Sequence[int]) -> Blocks:
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _sum(values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, flat: Any, backend: str) -> Tensor:
    return kernels_of(backend).weighted_sum(values, weights, receiver, row_pointers, _blocks(flat))


def _sum_gradients(values: Tensor, weights: Tensor, g: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    receiver, row_pointers, flat, backend, wanted = rest
    kernels = kernels_of(backend)
    return kernels.weighted_sum_gradients(values, weights, g, receiver, row_pointers, _blocks(flat), wanted)


def _sum_shape(values: Tensor, weights: Tensor, receiver: Tensor, row_pointers: Tensor, *_: Any) -> tuple[int, ...]:
    return row_pointers.shape[0] - 1, values.shape[1]


_REST = ("Tensor receiver", "Tensor row_pointers", "int[] blocks", "str backend")
_sum_operator = multilinear("weighted_sum", ("values", "weights"), _REST, _sum, _sum_gradients, _sum_shape)


def fused_weighted_sum(values: Tensor, weights: Tensor, segments: Segments, blocks: Blocks, backend: str) -> Tensor:
    """``geoeq.kernels.weighted_sum`` by the kernels of a backend, for rows sorted by their segment.

    Shapes:
        values: [E, D]. weights: [E, H]. Returns [num_segments, D].
    """
    dtype = torch.promote_types(values.dtype, weights.dtype)  # they differ under autocast
    flat = [number for block in blocks for number in block]
    given = values.to(dtype), weights.to(dtype), segments.index, segments.row_pointers
    return _sum_operator(*given, flat, backend)


@torch.library.custom_op("geoeq::segment_softmax", mutates_args=())
def _softmax(scores: Tensor, receiver: Tensor, row_pointers: Tensor, backend: str) -> Tensor:
    return kernels_of(backend).segment_softmax(scores.contiguous(), receiver, row_pointers)


@torch.library.custom_op("geoeq::segment_softmax_gradient", mutates_args=())
def _softmax_gradient(
    softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor, backend: str
) -> Tensor:
    factors = softmax.contiguous(), cotangent.contiguous()
    return kernels_of(backend).segment_softmax_gradient(*factors, receiver, row_pointers)


@_softmax.register_fake
def _(scores: Tensor, receiver: Tensor, row_pointers: Tensor, backend: str) -> Tensor:
    return torch.empty_like(scores, memory_format=torch.contiguous_format)


@_softmax_gradient.register_fake
def _(softmax: Tensor, cotangent: Tensor, receiver: Tensor, row_pointers: Tensor, backend: str) -> Tensor:
    return torch.empty_like(softmax, memory_format=torch.contiguous_format)


def _keep_result(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    _, receiver, row_pointers, ctx.backend = inputs
    ctx.save_for_backward(output, receiver, row_pointers)


def _softmax_backward(ctx, cotangent):  # type: ignore[no-untyped-def]
    softmax, *rows = ctx.saved_tensors
    return _softmax_gradient(softmax, cotangent, *rows, ctx.backend), None, None, None


def _keep_all(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _gradient_backward(ctx, u):  # type: ignore[no-untyped-def]
    """Of ``a (c - Σ a c)``; in plain PyTorch, which has the derivatives of higher order."""
    softmax, cotangent, receiver, row_pointers = ctx.saved_tensors
    segments = Segments(receiver, row_pointers.shape[0] - 1, row_pointers)

    def mean(values: Tensor) -> Tensor:
        return Reference.segment_sum(softmax * values, segments).index_select(0, receiver)

    of_u, of_cotangent = mean(u), mean(cotangent)
    by_softmax = u * (cotangent - of_cotangent) - cotangent * of_u
    return by_softmax, softmax * (u - of_u), None, None, None


_softmax.register_autograd(_softmax_backward, setup_context=_keep_result)
_softmax_gradient.register_autograd(_gradient_backward, setup_context=_keep_all)


def fused_softmax(scores: Tensor, segments: Segments, backend: str) -> Tensor:
    """``geoeq.kernels.segment_softmax`` by the kernels of a backend, for rows sorted by their segment.

    Shapes:
        scores: [E, H]. Returns [E, H].
    """
    result: Tensor = _softmax(scores, segments.index, segments.row_pointers, backend)
    return result
