"""Symmetric matrices, such as a stress, as irreps ``0e + 2e`` and back."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor

from geoeq.constants import constant

__all__ = ["irreps_to_matrix", "matrix_to_irreps"]


@constant
def _basis() -> Tensor:
    """Six orthonormal symmetric matrices: the first the unit matrix over √3, the others e3nn's five of degree 2."""
    symbols: Tensor = o3.wigner_3j(1, 1, 2, dtype=torch.float64)  # [3, 3, 5]
    return torch.cat(
        [torch.eye(3, dtype=torch.float64).unsqueeze(0) / math.sqrt(3), math.sqrt(5) * symbols.movedim(2, 0)]
    )


def irreps_to_matrix(value: Tensor) -> Tensor:
    """The symmetric matrix [.., 3, 3] of numbers [.., 6], which turn as ``0e + 2e``; norms are kept."""
    return torch.einsum("...n,nij->...ij", value, _basis().to(value))


def matrix_to_irreps(matrix: Tensor) -> Tensor:
    """The numbers [.., 6], which turn as ``0e + 2e``, of the symmetric part of a matrix [.., 3, 3]; norms are kept."""
    return torch.einsum("...ij,nij->...n", matrix, _basis().to(matrix))
