"""Eigenvectors of symmetric matrices, with derivatives that stay finite where eigenvalues meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["eigenvectors"]


def eigenvectors(matrix: Tensor, broadening: float | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors, in columns, each of any sign.

    The derivative of eigenvector i has parts ``v_j / (λ_i - λ_j)``. Here 1 / d is ``d / (d² + ε²)``, with ε the
    trace times ``broadening``: exact to (ε / d)², at most 1 / 2ε, and zero where two eigenvalues are equal, where
    eigenvectors have no derivative. Derivatives of any order.

    Args:
        matrix: symmetric, not negative.
        broadening: by default the root of the dtype's epsilon.

    Shapes:
        matrix: [..., n, n]. Returns [..., n] and [..., n, n].
    """
    width = torch.finfo(matrix.dtype).eps ** 0.5 if broadening is None else broadening
    values, vectors = _Eigenvectors.apply(matrix, width)  # type: ignore[no-untyped-call]
    return values, vectors


class _Eigenvectors(torch.autograd.Function):
    """Its derivative is made of its own results, and so has derivatives itself."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, broadening: float) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        values, vectors = values.flip(-1), vectors.flip(-1)
        ctx.save_for_backward(values, vectors)
        ctx.broadening = broadening
        return values, vectors

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        gradient_values, gradient_vectors = gradients
        difference = values.unsqueeze(-2) - values.unsqueeze(-1)  # λ_j - λ_i
        width = ctx.broadening * values.sum(-1).abs() + torch.finfo(values.dtype).tiny ** 0.25
        inverse = difference / (difference.square() + width.square()[..., None, None])
        inner = inverse * (vectors.mT @ gradient_vectors) + torch.diag_embed(gradient_values)
        gradient = vectors @ inner @ vectors.mT
        return (gradient + gradient.mT) / 2, None
