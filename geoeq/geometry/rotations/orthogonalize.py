"""The orthogonal matrix nearest to a matrix, with derivatives that are finite at equal singular values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["nearest_orthogonal", "nearest_rotation"]


def nearest_rotation(matrix: Tensor) -> Tensor:
    """Return the proper rotation nearest to a matrix, in the sum of squares of the entries.

    With A = U S Vᵀ it is R = U diag(1, 1, det UVᵀ) Vᵀ. From A = R P with P symmetric follows::

        dR = R [ω]×,    (tr P - P) ω = the vector of the antisymmetric part of Rᵀ dA (twice)

    The eigenvalues of (tr P - P) are the sums s1 + s2, s1 ± s3 and s2 ± s3 (minus if det A < 0). Derivatives of every
    order are therefore finite for equal singular values, where those of U and V are not. They grow as 1 / (s2 ± s3)
    only where the result itself is about to jump: at a matrix of rank one, or a reflection with s2 = s3. There they are
    large but finite.

    Shapes:
        matrix: [..., 3, 3]. Returns [..., 3, 3].

    Source:
        Levinson et al., NeurIPS 2020, arXiv:2006.14616, section 3. Differs: derivatives do not use those of the SVD.
    """
    result: Tensor = _Polar.apply(matrix, True)  # type: ignore[no-untyped-call]
    return result


def nearest_orthogonal(matrix: Tensor) -> Tensor:
    """Return the nearest rotation or reflection: the orthogonal factor U Vᵀ of the polar decomposition."""
    result: Tensor = _Polar.apply(matrix, False)  # type: ignore[no-untyped-call]
    return result


class _Polar(torch.autograd.Function):
    """U D Vᵀ, whose derivative is expressed by the result and the argument, and is therefore differentiable."""

    @staticmethod
    def forward(matrix: Tensor, proper: bool) -> Tensor:
        left, _, right = torch.linalg.svd(matrix)
        if proper:
            sign = torch.linalg.det(left @ right).sign()
            left = torch.cat([left[..., :2], left[..., 2:] * sign[..., None, None]], dim=-1)
        rotation: Tensor = left @ right
        return rotation

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        matrix, rotation = ctx.saved_tensors
        stretch = rotation.mT @ matrix
        stretch = (stretch + stretch.mT) / 2  # P
        size = matrix.detach().square().sum((-2, -1)).sqrt()
        limits = torch.finfo(matrix.dtype)
        floor = limits.eps * size + limits.tiny**0.5
        trace = stretch.diagonal(dim1=-2, dim2=-1).sum(-1) + floor
        sums = torch.diag_embed(trace.unsqueeze(-1).expand(*trace.shape, 3)) - stretch  # tr P - P
        product = rotation.mT @ gradients[0]
        spin = torch.stack([_off(product, 2, 1), _off(product, 0, 2), _off(product, 1, 0)], dim=-1)
        x, y, z = torch.linalg.solve(sums, spin).unbind(-1)
        zero = torch.zeros_like(x)
        hat = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
        return rotation @ hat, None


def _off(matrix: Tensor, row: int, column: int) -> Tensor:
    return matrix[..., row, column] - matrix[..., column, row]
