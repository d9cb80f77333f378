"""Functions on the sphere: the same number of channels of every degree, in e3nn's layout and channels last."""

from __future__ import annotations

import torch
from e3nn import o3
from torch import Tensor

from geoeq.errors import InputError
from geoeq.layers.irreps.layout import to_channels_last, to_e3nn_layout

__all__ = ["from_coefficients", "sphere_irreps", "to_coefficients"]


def sphere_irreps(lmax: int, channels: int) -> o3.Irreps:
    """``Cx0e + Cx1o + Cx2e + ...``: C functions on the sphere, with degrees up to lmax.

    Raises:
        InputError: lmax is negative, or there is no channel.
    """
    if lmax < 0 or channels < 1:
        raise InputError(f"Functions on the sphere need lmax >= 0 and channels >= 1, not {lmax} and {channels}.")
    return o3.Irreps([(channels, (degree, (-1) ** degree)) for degree in range(lmax + 1)])


def to_coefficients(x: Tensor, lmax: int, channels: int) -> Tensor:
    """Features in e3nn's layout to channels last.

    Shapes:
        x: [N, C (lmax + 1)²]. Returns [N, (lmax + 1)², C].
    """
    return torch.cat(to_channels_last(x, tuple((2 * degree + 1, channels) for degree in range(lmax + 1))), dim=1)


def from_coefficients(x: Tensor, lmax: int) -> Tensor:
    """Channels last to e3nn's layout.

    Shapes:
        x: [N, (lmax + 1)², C]. Returns [N, C (lmax + 1)²].
    """
    return to_e3nn_layout(x.split([2 * degree + 1 for degree in range(lmax + 1)], dim=1))
