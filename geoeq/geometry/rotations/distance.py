"""Distance and mean of rotations."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.geometry.rotations.orthogonalize import nearest_rotation

__all__ = ["geodesic_distance", "mean_rotation"]


def geodesic_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle in radians, 0 to π, of the rotation from one to the other.

    It is computed from the sine and the cosine of the angle, and so is exact near 0 and π, where the arccosine of the
    trace loses half of the digits and has an infinite derivative. At 0 and π the angle has a kink, like a norm at zero;
    its derivative there is zero, and finite everywhere. As a loss, use its mean, or the mean of its square, which is
    smooth at 0.

    Shapes:
        first, second: [..., 3, 3], proper rotations. Returns [...].
    """
    relative = first.mT @ second
    off = (relative - relative.mT)[..., (2, 0, 1), (1, 2, 0)] / 2  # the axis times the sine
    square = off.square().sum(-1)
    zero = square == 0
    sine = torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())
    cosine = (relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def mean_rotation(rotations: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the rotation that minimises the sum of squared chordal distances ``|R - R_k|²`` (the projected mean).

    Shapes:
        rotations: [..., K, 3, 3]. weights: [..., K], non-negative; None for equal weights. Returns [..., 3, 3].

    Source:
        Hartley et al., IJCV 103, 267 (2013), section 5.2.
    """
    if weights is not None:
        rotations = rotations * weights[..., None, None]
    return nearest_rotation(rotations.sum(-3))
