"""Random rotations: of space, with reflections, and about an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from geoeq.geometry.rotations.conversions import matrix_from_quaternion, matrix_from_rotation_vector

__all__ = ["random_orthogonals", "random_rotations", "random_turns"]


def random_rotations(n: int, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Draw rotations uniformly from SO(3).

    Args:
        n: number of rotations.
        generator: random number generator; None uses PyTorch's default generator.
        dtype: dtype of the result; None uses PyTorch's default dtype.

    Shapes:
        Returns [n, 3, 3].
    """
    quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return matrix_from_quaternion(quaternions).to(dtype or torch.get_default_dtype())


def random_orthogonals(n: int, generator: torch.Generator | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Draw rotations and reflections uniformly from O(3); arguments and shapes are those of ``random_rotations``."""
    rotations = random_rotations(n, generator, dtype)
    sign = 1 - 2 * torch.randint(2, (n, 1, 1), generator=generator)
    return rotations * sign.to(rotations)


def random_turns(
    n: int, axis: Sequence[float], generator: torch.Generator | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw rotations about an axis by uniformly distributed angles.

    Args:
        n: number of rotations.
        axis: direction of the axis, of any non-zero length.
        generator: random number generator; None uses PyTorch's default generator.
        dtype: dtype of the result; None uses PyTorch's default dtype.

    Shapes:
        Returns [n, 3, 3].
    """
    direction = torch.tensor(axis, dtype=torch.float64)
    angles = 2 * math.pi * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    return matrix_from_rotation_vector(angles * direction / direction.norm()).to(dtype or torch.get_default_dtype())
