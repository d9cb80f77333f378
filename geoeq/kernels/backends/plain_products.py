"""Tensor products of features and harmonics in plain PyTorch: right to any order of derivatives, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.kernels.backend import EdgeTensors, Segments
from geoeq.kernels.backends.reference import Reference
from geoeq.kernels.paths import Path, Paths

__all__ = ["ReferenceBackend"]


class ReferenceBackend(Reference):
    """The sums of ``Reference``, and tensor products.

    Harmonics are contracted with the couplings first, once for all channels; small matrix products do the rest.
    """

    @staticmethod
    def tensor_product(x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
        found = _parts(x, harmonics, weights, paths)
        return tuple(_joined(parts) for parts in found)

    @staticmethod
    def tensor_product_linear(
        x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        found = _parts(x, harmonics, weights, paths)
        return tuple(_mapped(parts, matrix) for parts, matrix in zip(found, maps, strict=True))

    @classmethod
    def attended_product(
        cls, x: Tensor, harmonics: Tensor, weights: Tensor, edges: Segments, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        mapped = cls.tensor_product_linear(x, harmonics, None, paths.single, maps)
        blocks = tuple((value.shape[1], value.shape[2]) for value in mapped)
        values = torch.cat([value.flatten(1) for value in mapped], dim=1)
        sums = cls.weighted_sum(values, weights, edges, blocks).split([rows * width for rows, width in blocks], dim=1)
        return tuple(part.unflatten(1, block) for part, block in zip(sums, blocks, strict=True))

    @classmethod
    def tensor_product_conv(
        cls, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        receivers = Segments(edges.receiver, x.shape[0], edges.row_pointers)
        messages = ReferenceBackend.tensor_product(x.index_select(0, edges.sender), harmonics, weights, paths)
        sums = [cls.segment_sum(message, receivers).flatten(1) for message in messages]
        return torch.cat(sums, dim=1)

    @classmethod
    def radial_tensor_product_conv(
        cls, x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        return cls.tensor_product_conv(x, harmonics, hidden @ matrix, edges, paths)


_Parts = list[tuple[int, Tensor]]  # the first channel of each part, and the part


def _parts(x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> list[_Parts]:
    """The parts of each block of the result, one for each piece; none is ever copied into its block here."""
    rows = x.split([dim * channels for dim, channels in paths.x_blocks], dim=1)
    blocks = [row.reshape(x.shape[0], *shape) for row, shape in zip(rows, paths.x_blocks, strict=True)]  # [E, i, U]
    own = None if weights is None else weights.split([path.weight_numel for path in paths.paths], dim=1)
    members = [[paths.paths[n] for n in piece] for piece in paths.pieces]
    heights = [(2 * piece[0].degrees[2] + 1) * len(piece) for piece in members]  # k · P
    widths = [paths.x_blocks[piece[0].x_block][0] for piece in members]  # i
    sizes = [height * width for height, width in zip(heights, widths, strict=True)]
    constants = (harmonics[:, : paths.harmonics_dim] @ paths.matrix.to(harmonics)).split(sizes, dim=1)

    found: list[_Parts] = [[] for _ in paths.out_blocks]
    for numbers, piece, constant, height, width in zip(paths.pieces, members, constants, heights, widths, strict=True):
        path, block = piece[0], blocks[piece[0].x_block]
        matrices = constant.reshape(x.shape[0], height, width)  # [E, k · P, i]
        product = matrices * block if width == 1 else torch.bmm(matrices, block)  # [E, k · P, U]
        part = product.reshape(x.shape[0], height // len(piece), len(piece) * path.x_channels)  # [E, k, P · U]
        if own is not None:
            part = _weighed(part, [own[n] for n in numbers], path)
        found[path.out_block].append((path.out_channel, part))
    return found


def _weighed(part: Tensor, weights: Sequence[Tensor], path: Path) -> Tensor:
    mine = weights[0] if len(weights) == 1 else torch.cat(list(weights), dim=1)
    if path.mode == "uvu":
        return part * mine.unsqueeze(1)  # [E, k, P · U]
    return torch.bmm(part, mine.reshape(part.shape[0], part.shape[2], path.out_channels))  # [E, k, W]


def _joined(parts: _Parts) -> Tensor:
    """Parts side by side in their block; parts that write to the same channels are added."""
    channels: dict[int, Tensor] = {}
    for start, part in parts:
        channels[start] = channels[start] + part if start in channels else part
    ordered = [channels[start] for start in sorted(channels)]
    return ordered[0] if len(ordered) == 1 else torch.cat(ordered, dim=2)  # [E, 2 l + 1, channels]


def _mapped(parts: _Parts, matrix: Tensor) -> Tensor:
    first, *others = [part @ matrix[start : start + part.shape[2]] for start, part in parts]
    for other in others:
        first = first + other
    return first  # [E, 2 l + 1, V]
