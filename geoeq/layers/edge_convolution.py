"""The convolution of both ends of an edge in its frame: some edges at a time, keeping nothing of a message's size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from geoeq import kernels
from geoeq.layers.so2 import convolve_orders

__all__ = ["edge_convolution"]

#: edges at a time: few enough that their messages stay in a cache of some MB, enough for fast matrix products.
CHUNK = 512


def _factored(inputs: Sequence[Tensor], sender: Tensor, receiver: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Both ends in the frame times their factors: for each m >= 0 [E, (1 or 2) n_m 2C], of +m and -m side by side."""
    x, hidden, weight, offset, frame = inputs
    ends = [torch.bmm(frame, kernels.gather(x, end)) for end in (sender, receiver)]
    rotated = torch.cat(ends, dim=-1)  # [E, R, 2C]
    factors = linear(hidden, weight, offset).unflatten(1, (sum(sizes), rotated.shape[-1]))
    rows = rotated.split([sizes[0], *(2 * size for size in sizes[1:])], dim=1)
    parts = [(rows[0] * factors[:, : sizes[0]]).flatten(1)]
    for m, factor in enumerate(factors[:, sizes[0] :].split(list(sizes[1:]), dim=1), start=1):
        parts.append((rows[m].unflatten(1, (2, sizes[m])) * factor.unsqueeze(1)).flatten(1))
    return parts


def _plain(tensors: Sequence[Tensor], matrices: Sequence[Tensor], sizes: Sequence[int]) -> Tensor:
    *inputs, bias, sender, receiver = tensors
    return convolve_orders(_factored(inputs, sender, receiver, sizes), matrices, bias)


class _EdgeConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: tuple[int, ...], first: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(*tensors)
        ctx.sizes = sizes
        (x, hidden, weight, offset, frame, bias, sender, receiver), matrices = tensors[:8], tensors[8:]
        scores = x.new_empty(len(sender), first)
        rest = x.new_empty(len(sender), sum(len(matrix) for matrix in matrices) - first)
        for start in range(0, len(sender), CHUNK):
            rows = slice(start, start + CHUNK)
            chunk = [x, hidden[rows], weight, offset, frame[rows], bias, sender[rows], receiver[rows]]
            scores[rows], rest[rows] = _plain(chunk, matrices, sizes).tensor_split([first], dim=1)
        return scores, rest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        needed: tuple[bool, ...] = ctx.needs_input_grad[2:]
        with torch.autocast(tensors[0].device.type, enabled=False):
            if torch.is_grad_enabled():  # derivatives of higher order are wanted
                return None, None, *_derivatives_at_once(tensors, needed, ctx.sizes, torch.cat(gradients, dim=1))
            return None, None, *_derivatives(tensors, needed, ctx.sizes, gradients)


def _derivatives_at_once(
    tensors: Sequence[Tensor], needed: Sequence[bool], sizes: Sequence[int], gradient: Tensor
) -> list[Tensor | None]:
    # Aliases: one of the tensors may be what another was made of, and that way does not count here.
    aliases = [t.view_as(t) if need else t for t, need in zip(tensors, needed, strict=True)]
    wanted = [alias for alias, need in zip(aliases, needed, strict=True) if need]
    y = _plain(aliases[:8], aliases[8:], sizes)
    found = iter(torch.autograd.grad(y, wanted, gradient, create_graph=True))
    return [next(found) if need else None for need in needed]


def _derivatives(
    tensors: Sequence[Tensor], needed: Sequence[bool], sizes: Sequence[int], gradients: Sequence[Tensor]
) -> list[Tensor | None]:
    (x, hidden, weight, offset, frame, _, sender, receiver), matrices = tensors[:8], tensors[8:]
    totals = [torch.zeros_like(t) if need else None for t, need in zip(tensors, needed, strict=True)]
    widths = [len(matrix) for matrix in matrices]
    for start in range(0, len(sender), CHUNK):
        rows = slice(start, start + CHUNK)
        chunk = (x, hidden[rows], weight, offset, frame[rows])
        inputs = [t.detach().requires_grad_(need) for t, need in zip(chunk, needed[:5], strict=True)]
        with torch.enable_grad():
            parts = _factored(inputs, sender[rows], receiver[rows], sizes)
        pieces = torch.cat([gradient[rows] for gradient in gradients], dim=1).split(widths, dim=1)
        for total, part, piece in zip(totals[8:], parts, pieces, strict=True):
            if total is not None:
                total.addmm_(piece.T, part.detach())
        if totals[5] is not None:
            totals[5] += pieces[0].sum(0)
        wanted = [(k, t) for k, t in enumerate(inputs) if t.requires_grad]
        if wanted:
            seeds = [piece @ matrix for piece, matrix in zip(pieces, matrices, strict=True)]
            found = torch.autograd.grad(parts, [t for _, t in wanted], seeds)
            for (k, _), value in zip(wanted, found, strict=True):
                total = totals[k]
                if total is not None:
                    (total[rows] if k in (1, 4) else total).add_(value)  # edges by rows, what is shared as a sum
    return totals


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
    """``SO2(w_ij * [D x_j, D x_i])`` with factors ``w_ij = A h_ij + b``; only the arguments are kept for derivatives.

    Rotated features, factors and their product, the largest tensors of the network, exist for some edges at a time, and
    are made again for derivatives; the convolution itself is not.

    Args:
        x: features of the nodes.
        hidden: h, of the edges. radial_weight, radial_bias: A and b.
        frame: of ``frame_matrix``.
        sender, receiver: of the edges.
        matrices: for each m >= 0 the map of the rows of this order, for m > 0 of the pair (+m, -m).
        bias: of the first of them.
        sizes: of ``order_sizes``.
        first: how many of the results are given apart.

    Shapes:
        x: [N, K, C]. hidden: [E, H]. radial_weight: [S, H] with S = sum(sizes) 2C. frame: [E, R, K].
        Returns [E, first] and [E, D - first], D the rows of all matrices.
    """
    with torch.autocast(x.device.type, enabled=False):  # sums of many terms want the whole precision
        given = [tensor.to(frame.dtype) for tensor in (x, hidden, radial_weight, radial_bias, frame, bias)]
        whole = [matrix.to(frame.dtype) for matrix in matrices]
        return _convolution((*given, sender, receiver), whole, sizes, first)


def _convolution(
    tensors: Sequence[Tensor], matrices: Sequence[Tensor], sizes: tuple[int, ...], first: int
) -> tuple[Tensor, Tensor]:
    if torch.compiler.is_compiling():  # the compiler chooses by itself what to keep
        scores, rest = _plain(tensors, matrices, sizes).tensor_split([first], dim=1)
        return scores, rest
    result: tuple[Tensor, Tensor] = _EdgeConvolution.apply(sizes, first, *tensors, *matrices)  # type: ignore[no-untyped-call]
    return result
