"""SO(2) convolution of both ends of an edge, in chunks of edges and without storing anything as large as messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from geoeq import kernels
from geoeq.derivatives import in_transform
from geoeq.layers.chunked import add_rows, derivatives_in_chunks, rows_at_once
from geoeq.layers.edge_frames.so2 import by_order, convolve_orders, pair_terms

__all__ = ["edge_convolution"]

#: Edges per chunk: few enough that their messages fit in a cache of some MB, enough for fast matrix products.
CHUNK = 512


def _factored(ends: Sequence[Tensor], inputs: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """Return both ends in the edge frame times their factors, as parts for ``convolve_orders``: each [E, n_m 2C]."""
    hidden, weight, offset, frame = inputs
    rotated = torch.cat([torch.bmm(frame, end) for end in ends], dim=-1)
    first, *pairs = by_order(rotated, sizes)
    factors = linear(hidden, weight, offset).split([size * rotated.shape[-1] for size in sizes], dim=1)
    terms = (pair_terms(pair * factor.unsqueeze(1)) for pair, factor in zip(pairs, factors[1:], strict=True))
    return [first * factors[0], *(term for three in terms for term in three)]


def _convolve(tensors: Sequence[Tensor], matrices: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    x, *inputs, bias, sender, receiver = tensors
    ends = [kernels.gather(x, end) for end in (sender, receiver)]
    return convolve_orders(_factored(ends, inputs, sizes), matrices, bias)


class _EdgeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: tuple[int, ...], first: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors)
        ctx.sizes = sizes
        (x, hidden, weight, offset, frame, bias, sender, receiver), matrices = tensors[:8], tensors[8:]
        scores = x.new_empty(len(sender), first)
        rest = x.new_empty(len(sender), sum(_widths(matrices)) - first)
        size = rows_at_once(x, CHUNK)
        for start in range(0, len(sender), size):
            rows = slice(start, start + size)
            chunk = [x, hidden[rows], weight, offset, frame[rows], bias, sender[rows], receiver[rows]]
            scores[rows], rest[rows] = _convolve(chunk, matrices, sizes).tensor_split([first], dim=1)
        return scores, rest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        needed: tuple[bool, ...] = ctx.needs_input_grad[2:]
        with torch.autocast(tensors[0].device.type, enabled=False):
            if torch.is_grad_enabled():  # higher derivatives are requested
                return None, None, *_derivatives_in_chunks(tensors, needed, ctx.sizes, torch.cat(gradients, dim=1))
            return None, None, *_derivatives(tensors, needed, ctx.sizes, gradients)


#: Indices of the tensors with one row per edge: hidden, frame, sender and receiver.
_ROWS = (1, 4, 6, 7)


def _derivatives_in_chunks(
    tensors: Sequence[Tensor], needed: Sequence[bool], sizes: Sequence[int], gradient: Tensor
) -> list[Tensor | None]:
    """Return first derivatives that are differentiable themselves."""
    order = [*_ROWS, *(k for k in range(len(tensors)) if k not in _ROWS)]
    inverse = [order.index(k) for k in range(len(tensors))]

    def convolve(*arranged: Tensor) -> Tensor:
        sorted_ = [arranged[k] for k in inverse]
        return _convolve(sorted_[:8], sorted_[8:], sizes)

    arranged = [tensors[k] for k in order]
    needed = [needed[k] for k in order]
    derivatives = derivatives_in_chunks(convolve, arranged[:4], arranged[4:], CHUNK, needed, gradient)
    return [derivatives[k] for k in inverse]


def _derivatives(
    tensors: Sequence[Tensor], needed: Sequence[bool], sizes: Sequence[int], gradients: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return first derivatives, computed chunk by chunk."""
    (x, hidden, weight, offset, frame, _, *ends), matrices = tensors[:8], tensors[8:]
    totals = [torch.zeros_like(t) if need else None for t, need in zip(tensors, needed, strict=True)]
    size = rows_at_once(x, CHUNK)
    for start in range(0, len(hidden), size):
        rows = slice(start, start + size)
        nodes = [end[rows] for end in ends]
        gathered = [kernels.gather(x, index).requires_grad_(needed[0]) for index in nodes]
        chunk = (hidden[rows], weight, offset, frame[rows])
        inputs = [t.detach().requires_grad_(need) for t, need in zip(chunk, needed[1:5], strict=True)]
        with torch.enable_grad():
            parts = _factored(gathered, inputs, sizes)
        products = _of_products(torch.cat([gradient[rows] for gradient in gradients], dim=1), matrices)
        for total, part, product in zip(totals[8:], parts, products, strict=True):
            if total is not None:
                total.addmm_(product.T, part.detach())
        if totals[5] is not None:
            totals[5] += products[0].sum(0)
        differentiated = [t for t in (*gathered, *inputs) if t.requires_grad]
        if differentiated:
            seeds = [product @ matrix for product, matrix in zip(products, matrices, strict=True)]
            derivatives = iter(torch.autograd.grad(parts, differentiated, seeds))
            if totals[0] is not None:
                for index in nodes:
                    add_rows(totals[0], index, next(derivatives))
            for k, total in enumerate(totals[1:5], start=1):
                if total is not None:  # edges row by row, shared tensors as a sum
                    (total[rows] if k in (1, 4) else total).add_(next(derivatives))
    return totals


def _widths(matrices: Sequence[Tensor]) -> list[int]:
    """Return the widths of the results of ``convolve_orders``: m = 0, +1, -1, +2, ..."""
    return [len(matrices[0]), *(len(matrix) for matrix in matrices[1::3] for _ in range(2))]


def _of_products(gradient: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of the matrix products in ``convolve_orders`` from the gradient of its result."""
    first, *pairs = gradient.split(_widths(matrices), dim=1)
    products = [first]
    for plus, minus in zip(pairs[::2], pairs[1::2], strict=True):
        products += [plus + minus, minus, plus]
    return products


def edge_convolution(
    x: Tensor,
    hidden: Tensor,
    radial_weight: Tensor,
    radial_bias: Tensor,
    frame: Tensor,
    sender: Tensor,
    receiver: Tensor,
    matrices: Sequence[Tensor],
    bias: Tensor,
    sizes: tuple[int, ...],
    first: int,
) -> tuple[Tensor, Tensor]:
    """Compute ``SO2(w_ij * [D x_j, D x_i])`` with factors ``w_ij = A h_ij + b``, storing only the arguments.

    Rotated features, factors and their product, the largest tensors of the network, are computed in chunks of edges,
    and again in the backward pass; the convolution itself is not repeated.

    Args:
        x: features of the nodes.
        hidden: hidden features h of the edges.
        radial_weight, radial_bias: A and b.
        frame: rotations to the edge frames, of ``frame_matrix``.
        sender, receiver: node indices of the edges.
        matrices: matrices of the ``SO2Convolution``.
        bias: bias of the first matrix.
        sizes: number of degrees of each order, of ``order_sizes``.
        first: number of result columns that are returned separately.

    Shapes:
        x: [N, K, C]. hidden: [E, H]. radial_weight: [S, H] with S = sum(sizes) 2C. frame: [E, R, K].
        Returns [E, first] and [E, D - first], D the number of result columns.
    """
    with torch.autocast(x.device.type, enabled=False):  # sums of many terms need full precision
        cast = [tensor.to(frame.dtype) for tensor in (x, hidden, radial_weight, radial_bias, frame, bias)]
        cast_matrices = [matrix.to(frame.dtype) for matrix in matrices]
        return _convolution((*cast, sender, receiver), cast_matrices, sizes, first)


def _convolution(
    tensors: Sequence[Tensor], matrices: Sequence[Tensor], sizes: tuple[int, ...], first: int
) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_compiling() or in_transform():  # these decide what to store
        scores, rest = _convolve(tensors, matrices, sizes).tensor_split([first], dim=1)
        return scores, rest
    result: tuple[Tensor, Tensor] = _EdgeConvolution.apply(sizes, first, *tensors, *matrices)  # type: ignore[no-untyped-call]
    return result
