"""Messages out of the frames of edges, weighed and summed at the receivers, some edges at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geoeq import kernels

__all__ = ["attention_sum"]

#: edges at a time, so that what is turned back stays in a cache of some MB.
CHUNK = 512


def _plain(values: Tensor, weights: Tensor, frame: Tensor, receiver: Tensor, num_nodes: int) -> Tensor:
    turned = torch.bmm(frame.transpose(1, 2), values * weights.unsqueeze(1))  # [E, K, C]
    return kernels.segment_sum(turned, receiver, num_nodes)


class _AttentionSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor, frame: Tensor, receiver: Tensor, num_nodes: int) -> Tensor:
        ctx.save_for_backward(values, weights, frame, receiver)
        total = values.new_zeros(num_nodes, frame.shape[2], values.shape[2])
        chunks = (tensor.split(CHUNK) for tensor in (values, weights, frame, receiver))
        for value, weight, block, end in zip(*chunks, strict=True):
            total += _plain(value, weight, block, end, num_nodes)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        size = max(len(tensors[0]), 1) if torch.is_grad_enabled() else CHUNK  # at once for a second derivative
        found: list[tuple[Tensor, ...]] = []
        for value, weight, block, end in zip(*(tensor.split(size) for tensor in tensors), strict=True):
            gradient = kernels.gather(gradients[0], end)  # [E, K, C]
            turned = torch.bmm(block, gradient)  # [E, R, C]
            parts = [turned * weight.unsqueeze(1), (turned * value).sum(1)]
            if ctx.needs_input_grad[2]:
                parts.append(torch.bmm(value * weight.unsqueeze(1), gradient.transpose(1, 2)))
            found.append(tuple(parts))
        whole = [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*found, strict=True)]
        return (*whole, *[None] * (5 - len(whole)))


def attention_sum(values: Tensor, weights: Tensor, frame: Tensor, receiver: Tensor, num_nodes: int) -> Tensor:
    """``Σ_e weights_e frame_e^T values_e`` at each receiver; only the arguments are kept for derivatives of any order.

    Shapes:
        values: [E, R, C]. weights: [E, C]. frame: [E, R, K]. receiver: [E]. Returns [num_nodes, K, C].
    """
    if torch.compiler.is_compiling():  # the compiler chooses by itself what to keep
        return _plain(values, weights, frame, receiver, num_nodes)
    result: Tensor = _AttentionSum.apply(values, weights, frame, receiver, num_nodes)  # type: ignore[no-untyped-call]
    return result
