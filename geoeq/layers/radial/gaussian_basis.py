"""A Gaussian basis whose centres and widths are learned."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from geoeq.errors import InputError
from geoeq.layers.layer import RadialFunction
from geoeq.layers.radial.envelope import positive_cutoff

__all__ = ["LearnedGaussianBasis"]


class LearnedGaussianBasis(RadialFunction):
    """Normal densities ``N(w r / cutoff + b; μ_k, σ_k)``, where w, b, μ and σ are learned; they do not end anywhere.

    Args:
        width: number K of functions.
        cutoff: unit of the distance, in Å.

    Shapes:
        lengths: [E] Å. Returns [E, K].

    Raises:
        InputError: there is no function, or the cutoff is not positive.

    Source:
        Shi et al. 2022, arXiv:2203.04810 (Graphormer), section 2.2, as Equiformer takes it: one w and b for all
        pairs of elements; σ is the absolute value of its parameter, plus 1e-5.
    """

    def __init__(self, width: int, cutoff: float) -> None:
        super().__init__()
        if width < 1:
            raise InputError(f"width must be at least 1, not {width}.")
        self.width, self.cutoff = width, positive_cutoff(cutoff)
        self.mean = nn.Parameter(torch.empty(width).uniform_(0, 1))
        self.std = nn.Parameter(torch.empty(width).uniform_(1 / width, 1))
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, cutoff=4.0)

    def forward(self, lengths: Tensor) -> Tensor:
        weight, bias, mean, std = (value.to(lengths.dtype) for value in (self.weight, self.bias, self.mean, self.std))
        place = weight * (lengths / self.cutoff).unsqueeze(-1) + bias  # [E, 1]
        std = std.abs() + 1e-5
        density = ((place - mean) / std).square().mul(-0.5).exp()  # [E, K]
        return density / (math.sqrt(2 * math.pi) * std)
