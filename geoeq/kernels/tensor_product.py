"""Tensor products of features and harmonics in plain PyTorch: right to any order of derivatives, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.kernels.backend import Segments
from geoeq.kernels.paths import Path, Paths
from geoeq.kernels.reference import Reference

__all__ = ["ReferenceTensorProducts"]


class ReferenceTensorProducts(Reference):
    """Harmonics are contracted with the couplings first, once for all channels; small matrix products do the rest."""

    @staticmethod
    def tensor_product(x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
        members = [[paths.paths[n] for n in group] for group in paths.groups]
        blocks = x.split([dim * channels for dim, channels in paths.x_blocks], dim=1)
        own = [None] * len(paths.paths) if weights is None else weights.split([p.weight_numel for p in paths.paths], 1)
        widths = [sum(2 * p.degrees[2] + 1 for p in group) for group in members]  # K of each block
        sizes = [width * dim for width, (dim, _) in zip(widths, paths.x_blocks, strict=True)]
        constants = harmonics[:, : paths.harmonics_dim] @ paths.matrix.to(harmonics)  # [E, Σ (2 l_out + 1)(2 l_x + 1)]

        found: list[list[tuple[int, Tensor]]] = [[] for _ in paths.out_blocks]
        pieces = zip(paths.groups, members, blocks, constants.split(sizes, dim=1), paths.x_blocks, strict=True)
        for group, group_paths, flat, constant, (dim, channels) in pieces:
            if not group:
                continue
            block = flat.reshape(x.shape[0], dim, channels)  # [E, i, U]
            matrices = constant.reshape(x.shape[0], constant.shape[1] // dim, dim)  # [E, K, i]
            product = matrices * block if dim == 1 else torch.bmm(matrices, block)  # [E, K, U]
            parts = product.split([2 * path.degrees[2] + 1 for path in group_paths], dim=1)
            for n, path, part in zip(group, group_paths, parts, strict=True):
                found[path.out_block].append((path.out_channel, _weighed(part, own[n], path)))
        return tuple(_joined(parts) for parts in found)

    @staticmethod
    def tensor_product_conv(
        x: Tensor, harmonics: Tensor, weights: Tensor, sender: Tensor, receivers: Segments, paths: Paths
    ) -> Tensor:
        messages = ReferenceTensorProducts.tensor_product(x.index_select(0, sender), harmonics, weights, paths)
        sums = [Reference.segment_sum(message, receivers).flatten(1) for message in messages]
        return torch.cat(sums, dim=1)


def _weighed(part: Tensor, weights: Tensor | None, path: Path) -> Tensor:
    if weights is None:
        return part
    if path.mode == "uvu":
        return part * weights.unsqueeze(1)  # [E, k, U]
    return torch.bmm(part, weights.reshape(weights.shape[0], path.x_channels, path.out_channels))  # [E, k, W]


def _joined(parts: list[tuple[int, Tensor]]) -> Tensor:
    """Parts side by side in their block; parts that write to the same channels are added."""
    channels: dict[int, Tensor] = {}
    for start, part in parts:
        channels[start] = channels[start] + part if start in channels else part
    return torch.cat([channels[start] for start in sorted(channels)], dim=2)  # [E, 2 l + 1, channels]
