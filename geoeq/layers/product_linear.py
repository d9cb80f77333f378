"""A tensor product and the linear maps of its result, in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq import kernels
from geoeq.layers.linear import Linear

__all__ = ["product_linear"]


def product_linear(
    x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: kernels.Paths, linears: Sequence[Linear]
) -> list[list[Tensor]]:
    """``[linear.on_blocks(product) for linear in linears]``; the product itself is never whole in memory.

    Args:
        x, harmonics, weights, paths: as for ``geoeq.kernels.tensor_product``.
        linears: maps from the irreps of the product, in which each irrep occurs once.

    Shapes:
        Returns the blocks of each map, channels last: [E, 2 l + 1, channels].
    """
    columns: list[list[Tensor]] = [[] for _ in paths.out_blocks]
    for linear in linears:
        for (block,), weight in zip(linear.sources, linear.weights, strict=True):
            columns[block].append(weight)
    maps = [
        torch.cat(mine, dim=1) if mine else x.new_zeros(channels, 0)
        for mine, (_, channels) in zip(columns, paths.out_blocks, strict=True)
    ]
    mapped = kernels.tensor_product_linear(x, harmonics, weights, paths, maps)
    parts = [
        iter(value.split([weight.shape[1] for weight in mine], dim=2))
        for value, mine in zip(mapped, columns, strict=True)
    ]
    return [linear.add_bias([next(parts[block]) for (block,) in linear.sources]) for linear in linears]
