"""A tensor product and linear maps of its result in one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq import kernels
from geoeq.layers.irreps.linear import Linear

__all__ = ["product_linear", "product_maps"]


def product_maps(paths: kernels.Paths, linears: Sequence[Linear]) -> list[Tensor]:
    """Return for each block of the product the matrices of all linear maps, side by side.

    Args:
        paths: paths of the product.
        linears: linear maps of the product's result, in whose irreps each irrep occurs once.

    Shapes:
        Returns [channels, V] of each block; V is 0 if no map reads the block.
    """
    columns: list[list[Tensor]] = [[] for _ in paths.out_blocks]
    for linear in linears:
        for (block,), weight in zip(linear.sources, linear.weights, strict=True):
            columns[block].append(weight)
    like = linears[0].weights[0]
    return [
        torch.cat(matrices, dim=1) if matrices else like.new_zeros(channels, 0)
        for matrices, (_, channels) in zip(columns, paths.out_blocks, strict=True)
    ]


def product_linear(
    x: Tensor,
    harmonics: Tensor,
    weights: Tensor | None,
    paths: kernels.Paths,
    linears: Sequence[Linear],
    maps: Sequence[Tensor],
    biases: Sequence[Tensor | None],
) -> list[list[Tensor]]:
    """Compute ``[linear.on_blocks(product) for linear in linears]`` with parameters passed as arguments.

    Args:
        x, harmonics, weights, paths: as for ``geoeq.kernels.tensor_product``.
        linears: linear maps of the product's result.
        maps: matrices of ``product_maps(paths, linears)``.
        biases: ``linear.bias`` of each map.

    Shapes:
        Returns the blocks of each map, channels last: [E, 2 l + 1, channels].
    """
    widths: list[list[int]] = [[] for _ in paths.out_blocks]
    for linear in linears:
        for (block,), weight in zip(linear.sources, linear.weights, strict=True):
            widths[block].append(weight.shape[1])
    mapped = kernels.tensor_product_linear(x, harmonics, weights, paths, maps)
    parts = [iter(value.split(sizes, dim=2)) for value, sizes in zip(mapped, widths, strict=True)]
    return [
        linear.add_bias([next(parts[block]) for (block,) in linear.sources], bias)
        for linear, bias in zip(linears, biases, strict=True)
    ]
