"""Eigenvectors of symmetric matrices, with derivatives that stay finite at degenerate eigenvalues."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["eigenvectors"]


def eigenvectors(matrix: Tensor, broadening: float | None = None) -> tuple[Tensor, Tensor]:
    """Return eigenvalues in descending order, and eigenvectors in columns, each with arbitrary sign.

    The derivative of eigenvector i has terms ``v_j / (λ_i - λ_j)``. Here ``d³ / (d⁴ + ε⁴)`` replaces 1 / d, with ε the
    trace times ``broadening``: exact to (ε / d)⁴, at most 0.6 / ε, and zero, with all of its derivatives, if two
    eigenvalues are equal and eigenvectors have no derivative. Derivatives of any order exist.

    Args:
        matrix: symmetric positive semidefinite matrices.
        broadening: relative broadening; by default the epsilon of the dtype to the power 3/8, 1e-6 in float64.

    Shapes:
        matrix: [..., n, n]. Returns [..., n] and [..., n, n].
    """
    width = torch.finfo(matrix.dtype).eps ** 0.375 if broadening is None else broadening
    values, vectors = _Eigenvectors.apply(matrix, width)  # type: ignore[no-untyped-call]
    return values, vectors


class _Eigenvectors(torch.autograd.Function):
    """Eigendecomposition whose derivative is expressed by its own results, and is therefore differentiable."""

    @staticmethod
    def forward(matrix: Tensor, broadening: float) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return values.flip(-1), vectors.flip(-1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*output)
        ctx.broadening = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        gradient_values, gradient_vectors = gradients
        difference = values.unsqueeze(-2) - values.unsqueeze(-1)  # λ_j - λ_i
        width = ctx.broadening * values.sum(-1).abs() + torch.finfo(values.dtype).tiny ** 0.125
        inverse = difference**3 / (difference**4 + (width**4)[..., None, None])
        turn = vectors.mT @ gradient_vectors
        # Only the antisymmetric part, which rotates the eigenvectors; the gradient is then symmetric, like the matrix.
        inner = inverse * (turn - turn.mT) / 2 + torch.diag_embed(gradient_values)
        return vectors @ inner @ vectors.mT, None
