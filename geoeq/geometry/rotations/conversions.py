"""Convert rotation matrices to and from six or nine numbers, quaternions and rotation vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from geoeq.geometry.rotations.orthogonalize import nearest_rotation

__all__ = [
    "matrix_from_6d",
    "matrix_from_9d",
    "matrix_from_quaternion",
    "matrix_from_rotation_vector",
    "matrix_to_6d",
    "matrix_to_9d",
    "matrix_to_quaternion",
    "matrix_to_rotation_vector",
]

#: Number of terms of the series of sine, cosine and arctangent at zero, enough for float64.
_TERMS = 10
#: Squared tangent of half the angle below which the arctangent is computed by its series.
_SMALL_TANGENT = 1e-2


def matrix_from_6d(vectors: Tensor) -> Tensor:
    """Return the rotation whose first two columns are two vectors orthonormalised by Gram-Schmidt.

    Every rotation is reached and the inverse, ``matrix_to_6d``, is continuous, so a network learns these six numbers
    more easily than angles or quaternions. Two parallel vectors define no rotation, and no derivative.

    Shapes:
        vectors: [..., 6], the first column, then the second. Returns [..., 3, 3].

    Source:
        Zhou et al., CVPR 2019, arXiv:1812.07035, eqs. 14-17.
    """
    first = normalize(vectors[..., :3], dim=-1)
    second = vectors[..., 3:]
    second = normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def matrix_to_6d(rotation: Tensor) -> Tensor:
    """Return the first two columns, [..., 6], of matrices [..., 3, 3]."""
    return rotation[..., :2].mT.flatten(-2)


def matrix_from_9d(entries: Tensor) -> Tensor:
    """Return the rotation nearest to any matrix; see ``nearest_rotation``.

    Shapes:
        entries: [..., 9], row by row. Returns [..., 3, 3].

    Source:
        Levinson et al., NeurIPS 2020, arXiv:2006.14616 (SVDO+). Differs: derivatives are those of the polar factor.
    """
    return nearest_rotation(entries.unflatten(-1, (3, 3)))


def matrix_to_9d(rotation: Tensor) -> Tensor:
    """Return the entries, [..., 9], row by row, of matrices [..., 3, 3]."""
    return rotation.flatten(-2)


def matrix_from_quaternion(quaternion: Tensor) -> Tensor:
    """Return the rotation of a non-zero quaternion; q and -q are the same rotation.

    Shapes:
        quaternion: [..., 4], w x y z. Returns [..., 3, 3].
    """
    w, x, y, z = normalize(quaternion, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def matrix_to_quaternion(rotation: Tensor) -> Tensor:
    """Return the unit quaternion with w >= 0, equally exact for all angles, half turns included.

    The matrix gives 4 q qᵀ without a square root. Its rows are multiples of q, and the row with the largest diagonal
    entry has at least length one.

    Shapes:
        rotation: [..., 3, 3]. Returns [..., 4], w x y z. The sign necessarily jumps at half turns.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotation.unbind(-2))
    rows = (
        (1 + a + e + i, h - f, c - g, d - b),
        (h - f, 1 + a - e - i, b + d, c + g),
        (c - g, b + d, 1 - a + e - i, f + h),
        (d - b, c + g, f + h, 1 - a - e + i),
    )
    products = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # [..., 4, 4]
    best = products.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    row = products.take_along_dim(best, dim=-2).squeeze(-2)
    row = torch.where(row[..., :1] < 0, -row, row)
    return normalize(row, dim=-1)


def matrix_from_rotation_vector(vector: Tensor) -> Tensor:
    """Return the rotation about a vector by its length in radians (axis-angle); derivatives are exact at zero too.

    Shapes:
        vector: [..., 3]. Returns [..., 3, 3].
    """
    square = vector.square().sum(-1, keepdim=True)
    small = square < 1
    angle = torch.where(small, 1.0, square).sqrt()
    series = torch.where(small, square, 0.0) / -4
    cosine, sine = torch.zeros_like(series), torch.zeros_like(series)
    for n in reversed(range(_TERMS)):
        cosine = cosine * series + 1 / math.factorial(2 * n)
        sine = sine * series + 0.5 / math.factorial(2 * n + 1)
    cosine = torch.where(small, cosine, (angle / 2).cos())
    sine = torch.where(small, sine, (angle / 2).sin() / angle)  # sin(θ/2) / θ
    return matrix_from_quaternion(torch.cat([cosine, sine * vector], dim=-1))


def matrix_to_rotation_vector(rotation: Tensor) -> Tensor:
    """Return the axis times the angle in radians, 0 to π; derivatives are exact at the identity too.

    Shapes:
        rotation: [..., 3, 3]. Returns [..., 3]. The sign necessarily jumps at half turns.
    """
    quaternion = matrix_to_quaternion(rotation)
    cosine, axis = quaternion[..., :1], quaternion[..., 1:]
    square = axis.square().sum(-1, keepdim=True)
    small = square < _SMALL_TANGENT * cosine.square()
    sine = torch.where(small, 1.0, square).sqrt()
    tangent = torch.where(small, square / torch.where(small, cosine, 1.0).square(), 0.0)  # squared
    series = torch.zeros_like(tangent)
    for n in reversed(range(_TERMS)):
        series = 1 / (2 * n + 1) - tangent * series
    ratio = torch.where(small, series / torch.where(small, cosine, 1.0), torch.atan2(sine, cosine) / sine)
    return 2 * ratio * axis
