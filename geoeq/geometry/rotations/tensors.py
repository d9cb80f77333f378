"""Convert symmetric matrices, such as a stress, to irreps ``0e + 2e`` and back."""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor

from geoeq.constants import constant

__all__ = ["irreps_to_matrix", "matrix_to_irreps"]


@constant
def _basis() -> Tensor:
    """Return six orthonormal symmetric matrices: the unit matrix over √3, and e3nn's five of degree 2."""
    symbols: Tensor = o3.wigner_3j(1, 1, 2, dtype=torch.float64)  # [3, 3, 5]
    return torch.cat(
        [torch.eye(3, dtype=torch.float64).unsqueeze(0) / math.sqrt(3), math.sqrt(5) * symbols.movedim(2, 0)]
    )


def irreps_to_matrix(value: Tensor) -> Tensor:
    """Return the symmetric matrix [.., 3, 3] of components [.., 6] in irreps ``0e + 2e``; norms are preserved."""
    return torch.einsum("...n,nij->...ij", value, _basis().to(value))


def matrix_to_irreps(matrix: Tensor) -> Tensor:
    """Return the components [.., 6] in irreps ``0e + 2e`` of the symmetric part of a matrix [.., 3, 3]."""
    return torch.einsum("...ij,nij->...n", matrix, _basis().to(matrix))
