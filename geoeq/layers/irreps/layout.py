"""Conversion between e3nn's layout and channels last, which is done once per node and never per edge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from e3nn import o3
from torch import Tensor

from geoeq.errors import InputError

__all__ = [
    "Blocks",
    "Fiber",
    "fiber",
    "flatten_blocks",
    "from_coefficients",
    "irreps_blocks",
    "sphere_irreps",
    "split_blocks",
    "to_channels_last",
    "to_coefficients",
    "to_e3nn_layout",
]


#: (2 l + 1, channels) of each block: irreps in a form that torch.compile can read.
Blocks = tuple[tuple[int, int], ...]


def irreps_blocks(irreps: o3.Irreps) -> Blocks:
    """Return the blocks of irreps, entry by entry."""
    return tuple((ir.dim, mul) for mul, ir in irreps)


def to_channels_last(x: Tensor, blocks: Blocks) -> list[Tensor]:
    """Split features in e3nn's layout into one channels-last tensor per block.

    Shapes:
        x: [N, irreps.dim], each block ``[channels, 2 l + 1]``. Returns [N, 2 l + 1, channels] each.
    """
    parts = x.split([dim * channels for dim, channels in blocks], dim=-1)
    return [
        part.reshape(part.shape[0], channels, dim).transpose(1, 2)
        for part, (dim, channels) in zip(parts, blocks, strict=True)
    ]


def to_e3nn_layout(parts: Sequence[Tensor]) -> Tensor:
    """Join channels-last blocks to features in e3nn's layout.

    Shapes:
        parts: [N, 2 l + 1, channels] each. Returns [N, irreps.dim].
    """
    return torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=-1)


def flatten_blocks(parts: Sequence[Tensor]) -> Tensor:
    """Join channels-last blocks to rows as the kernels take them, without changing the order of entries.

    Shapes:
        parts: [N, 2 l + 1, channels] each. Returns [N, irreps.dim].
    """
    return torch.cat([part.flatten(1) for part in parts], dim=-1)


def split_blocks(x: Tensor, blocks: Blocks) -> list[Tensor]:
    """Split rows of ``flatten_blocks`` into channels-last blocks.

    Shapes:
        x: [N, irreps.dim]. Returns [N, 2 l + 1, channels] each.
    """
    parts = x.split([dim * channels for dim, channels in blocks], dim=-1)
    return [part.unflatten(1, block) for part, block in zip(parts, blocks, strict=True)]


def sphere_irreps(lmax: int, channels: int) -> o3.Irreps:
    """Return ``Cx0e + Cx1o + Cx2e + ...``, the irreps of C functions on the sphere with degrees up to lmax.

    Raises:
        InputError: lmax is negative, or channels is not positive.
    """
    if lmax < 0 or channels < 1:
        raise InputError(f"Functions on the sphere need lmax >= 0 and channels >= 1, not {lmax} and {channels}.")
    return o3.Irreps([(channels, (degree, (-1) ** degree)) for degree in range(lmax + 1)])


def to_coefficients(x: Tensor, lmax: int, channels: int) -> Tensor:
    """Convert functions on the sphere from e3nn's layout to channels last.

    Shapes:
        x: [N, C (lmax + 1)²]. Returns [N, (lmax + 1)², C].
    """
    return torch.cat(to_channels_last(x, tuple((2 * degree + 1, channels) for degree in range(lmax + 1))), dim=1)


def from_coefficients(x: Tensor, lmax: int) -> Tensor:
    """Convert functions on the sphere from channels last to e3nn's layout.

    Shapes:
        x: [N, (lmax + 1)², C]. Returns [N, C (lmax + 1)²].
    """
    return to_e3nn_layout(x.split([2 * degree + 1 for degree in range(lmax + 1)], dim=1))


#: (degree, channels) of each degree, whatever the parity.
Fiber = tuple[tuple[int, int], ...]


def fiber(irreps: o3.Irreps | str) -> Fiber:
    """Return the degrees and channels of irreps.

    Raises:
        InputError: a degree occurs twice, there is no degree, or one has no channels.
    """
    entries = tuple((ir.l, mul) for mul, ir in o3.Irreps(irreps))
    if not entries or len({degree for degree, _ in entries}) < len(entries) or min(mul for _, mul in entries) < 1:
        raise InputError(f"The features need each degree once, with at least one channel; irreps are '{irreps}'.")
    return entries
