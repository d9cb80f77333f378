"""Radial bases of sigmoids, and one that is learned."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from geoeq.errors import InputError
from geoeq.layers.layer import RadialFunction
from geoeq.layers.radial.envelope import positive_cutoff

__all__ = ["SiLUBasis", "SigmoidBasis"]


class SigmoidBasis(RadialFunction):
    """``σ(t_k) + s t_k`` with ``t_k = β (r - μ_k)`` and centres from 0 to the cutoff; β is one over their spacing.

    Args:
        width: number K of functions, at least 2.
        cutoff: place of the last centre, in Å.
        sharpness: β as a multiple of one over the spacing.
        slope: s; the published "linearsigmoid" has 0.001.

    Shapes:
        lengths: [E] Å. Returns [E, K].

    Raises:
        InputError: there are fewer than two functions, or the cutoff is not positive.

    Source:
        Zitnick et al., NeurIPS 2022, arXiv:2206.14331, and its code.
    """

    centers: Tensor

    def __init__(self, width: int, cutoff: float, sharpness: float = 1.0, slope: float = 0.0) -> None:
        super().__init__()
        if width < 2:
            raise InputError(f"width must be at least 2, not {width}: the spacing of the centres is the scale.")
        self.width, self.slope = width, slope
        self.cutoff = positive_cutoff(cutoff)
        centers = torch.linspace(0, self.cutoff, width, dtype=torch.float64)
        self.register_buffer("centers", centers, persistent=False)
        self.scale = sharpness * (width - 1) / self.cutoff

    @classmethod
    def example(cls) -> Self:
        return cls(width=6, cutoff=4.0, slope=0.001)

    def forward(self, lengths: Tensor) -> Tensor:
        scaled = self.scale * (lengths.unsqueeze(-1) - self.centers.to(lengths.dtype))  # [E, K]
        return scaled.sigmoid() + self.slope * scaled


class SiLUBasis(RadialFunction):
    """``SiLU(a_k r + b_k)`` with learned a and b.

    Args:
        width: number K of functions.

    Shapes:
        lengths: [E] Å. Returns [E, K].

    Source:
        Zitnick et al., NeurIPS 2022, arXiv:2206.14331, and its code ("silu").
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear = nn.Linear(1, width)

    @classmethod
    def example(cls) -> Self:
        return cls(width=6)

    def forward(self, lengths: Tensor) -> Tensor:
        weight, bias = self.linear.weight.to(lengths.dtype), self.linear.bias.to(lengths.dtype)
        return nn.functional.silu(nn.functional.linear(lengths.unsqueeze(-1), weight, bias))
