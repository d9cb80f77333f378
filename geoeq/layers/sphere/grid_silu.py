"""SiLU on a grid of the sphere, without keeping the values on the grid."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.layers.chunked import chunked

__all__ = ["grid_silu"]

#: rows at a time, so that their values on the grid stay in the cache.
CHUNK = 64


def _plain(x: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
    return torch.matmul(from_grid, torch.nn.functional.silu(torch.matmul(to_grid, x)))


def grid_silu(x: Tensor, to_grid: Tensor, from_grid: Tensor) -> Tensor:
    """``from_grid @ silu(to_grid @ x)``; only x is kept for the derivatives, of any order.

    Shapes:
        x: [N, K, C]. to_grid: [P, K]. from_grid: [K, P]. Returns [N, K, C].
    """
    return chunked(_plain, [x], [to_grid, from_grid], CHUNK)
