"""SiLU on a grid of the sphere, without keeping the values on the grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["grid_silu"]

#: rows at a time, so that their values on the grid stay in the cache.
CHUNK = 64


def _chunks(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    return list(zip(*(tensor.split(CHUNK) for tensor in tensors), strict=True))


class _GridSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
        ctx.save_for_backward(x, to_grid, from_grid)
        parts = [
            torch.matmul(from_grid, torch.nn.functional.silu(torch.matmul(to_grid, part))) for (part,) in _chunks(x)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, to_grid, from_grid = ctx.saved_tensors
        parts = []
        for part, gradient in _chunks(x, gradients[0]):
            values = torch.matmul(to_grid, part)
            gradient = torch.matmul(from_grid.T, gradient)
            if torch.is_grad_enabled():  # a second derivative will be asked for
                gate = values.sigmoid()
                gradient = gradient * gate * (1 + values * (1 - gate))
            else:
                gradient = torch.ops.aten.silu_backward(gradient, values)
            parts.append(torch.matmul(to_grid.T, gradient))
        return (torch.cat(parts) if len(parts) > 1 else parts[0]), None, None


def grid_silu(x: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
    """``from_grid @ silu(to_grid @ x)``; only x is kept for the derivatives, of any order.

    Shapes:
        x: [N, K, C]. to_grid: [P, K]. from_grid: [K, P]. Returns [N, K, C].
    """
    if torch.compiler.is_compiling():  # the compiler chooses by itself what to keep
        return torch.matmul(from_grid, torch.nn.functional.silu(torch.matmul(to_grid, x)))
    result: Tensor = _GridSilu.apply(x, to_grid, from_grid)  # type: ignore[no-untyped-call]
    return result
