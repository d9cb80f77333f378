"""Between e3nn's layout and channels last: once per node, never per edge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor

__all__ = ["Blocks", "irreps_blocks", "to_channels_last", "to_e3nn_layout"]

#: (2 l + 1, channels) of each block: irreps as plain numbers, which torch.compile can read.
Blocks = tuple[tuple[int, int], ...]


def irreps_blocks(irreps: o3.Irreps) -> Blocks:
    """The blocks of irreps, entry by entry."""
    return tuple((ir.dim, mul) for mul, ir in irreps)


def to_channels_last(x: Tensor, blocks: Blocks) -> list[Tensor]:
    """Features in e3nn's layout as one tensor a block.

    Shapes:
        x: [N, irreps.dim], each block ``[channels, 2 l + 1]``. Returns [N, 2 l + 1, channels] each.
    """
    parts = x.split([dim * channels for dim, channels in blocks], dim=-1)
    return [
        part.reshape(part.shape[0], channels, dim).transpose(1, 2)
        for part, (dim, channels) in zip(parts, blocks, strict=True)
    ]


def to_e3nn_layout(parts: Sequence[Tensor]) -> Tensor:
    """The way back.

    Shapes:
        parts: [N, 2 l + 1, channels] each. Returns [N, irreps.dim].
    """
    return torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=-1)
