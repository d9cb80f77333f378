"""Radial bases: smooth functions of the distance, fixed or learned."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor, nn

from geoeq.errors import check_positive, check_sizes
from geoeq.layers.layer import RadialFunction
from geoeq.layers.radial.envelope import CosineEnvelope, PolynomialEnvelope

__all__ = ["BesselBasis", "ExpNormalBasis", "GaussianBasis", "LearnedGaussianBasis", "SiLUBasis", "SigmoidBasis"]


def _sine_over(x: Tensor) -> Tensor:
    """Return ``sin(x) / x``, by its series near zero, where torch.sinc has no second derivative."""
    small = x.abs() < 0.05
    square = torch.where(small, x, 0.0).square()
    series = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
    safe = torch.where(small, 1.0, x)
    return torch.where(small, series, safe.sin() / safe)


class GaussianBasis(RadialFunction):
    """``exp(-(r - μ_k)² / (2 σ²))`` with centres from 0 to the cutoff; σ is their spacing or a multiple of it.

    Args:
        width: number K of functions.
        cutoff: last centre in Å.
        spread: σ as a multiple of the spacing.

    Shapes:
        lengths: [E] Å. Returns [E, K].

    Raises:
        InputError: a number is out of range.

    Source:
        Schütt et al., NeurIPS 2017, arXiv:1706.08566, section 4.2 (their γ is 1 / (2 σ²)).
    """

    centers: Tensor

    def __init__(self, width: int, cutoff: float, spread: float = 1.0) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_positive(self, cutoff=cutoff, spread=spread)
        self.width, self.cutoff = width, float(cutoff)
        centers = torch.linspace(0, self.cutoff, width, dtype=torch.float64)
        self.register_buffer("centers", centers, persistent=False)
        self.sigma = spread * self.cutoff / max(width - 1, 1)

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, cutoff=4.0)

    def forward(self, lengths: Tensor) -> Tensor:
        distance = lengths.unsqueeze(-1) - self.centers.to(lengths.dtype)  # [E, K]
        return (distance / self.sigma).square().mul(-0.5).exp()


class BesselBasis(RadialFunction):
    """``sqrt(2 / c) sin(k π r / c) / r`` times a polynomial envelope, for k = 1 .. K.

    At zero distance the value is the limit ``sqrt(2 / c) k π / c``, with finite derivatives.

    Args:
        width: number K of functions.
        cutoff: cutoff c in Å; the functions are 0 beyond it.
        power: power of the envelope.
        learned: whether to learn the frequencies, starting from k; by default they are fixed.

    Shapes:
        lengths: [E] Å. Returns [E, K].

    Raises:
        InputError: a number is out of range.

    Source:
        Gasteiger et al., ICLR 2020, arXiv:2003.03123, eq. 7. Differs: frequencies are fixed unless ``learned``.
    """

    frequencies: Tensor

    def __init__(self, width: int, cutoff: float, power: int = 6, learned: bool = False) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_positive(self, cutoff=cutoff)
        self.width = width
        self.envelope = PolynomialEnvelope(cutoff, power)
        self.cutoff = self.envelope.cutoff
        if learned:
            self.frequencies = nn.Parameter(torch.arange(1.0, width + 1))
        else:
            self.register_buffer("frequencies", torch.arange(1, width + 1, dtype=torch.float64), persistent=False)

    @classmethod
    def example(cls) -> Self:
        return cls(width=6, cutoff=4.0)

    def forward(self, lengths: Tensor) -> Tensor:
        frequencies = self.frequencies.to(lengths.dtype) / self.cutoff  # [K]
        waves = frequencies * math.pi * _sine_over(lengths.unsqueeze(-1) * frequencies * math.pi)  # [E, K]
        envelope: Tensor = self.envelope(lengths)  # [E, 1]
        return math.sqrt(2 / self.cutoff) * waves * envelope


class ExpNormalBasis(RadialFunction):
    """``exp(-β (exp(-α r) - μ_k)²)`` times a cosine envelope, with α = 5 / cutoff: finer at short distances.

    Args:
        width: number K of functions.
        cutoff: cutoff in Å; the functions are 0 beyond it.

    Shapes:
        lengths: [E] Å. Returns [E, K].

    Raises:
        InputError: a number is out of range.

    Source:
        Unke & Meuwly, JCTC 15, 3678 (2019), eqs. 7-8, with the α of Thölke & De Fabritiis, ICLR 2022,
        arXiv:2202.02541. Differs: centres and widths are fixed.
    """

    centers: Tensor

    def __init__(self, width: int, cutoff: float) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_positive(self, cutoff=cutoff)
        self.width = width
        self.envelope = CosineEnvelope(cutoff)
        self.cutoff = self.envelope.cutoff
        self.alpha = 5 / self.cutoff
        start = math.exp(-5)
        self.register_buffer("centers", torch.linspace(start, 1, width, dtype=torch.float64), persistent=False)
        self.beta = (2 / width * (1 - start)) ** -2

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, cutoff=4.0)

    def forward(self, lengths: Tensor) -> Tensor:
        decay = (-self.alpha * lengths).exp().unsqueeze(-1)  # [E, 1]
        bumps = (-self.beta * (decay - self.centers.to(lengths.dtype)).square()).exp()  # [E, K]
        envelope: Tensor = self.envelope(lengths)  # [E, 1]
        return bumps * envelope


class LearnedGaussianBasis(RadialFunction):
    """Normal densities ``N(w r / cutoff + b; μ_k, σ_k)`` with learned w, b, μ and σ; they do not vanish at the cutoff.

    Args:
        width: number K of functions.
        cutoff: unit of the distance in Å.

    Shapes:
        lengths: [E] Å. Returns [E, K].

    Raises:
        InputError: width is less than 1, or the cutoff is not positive.

    Source:
        Shi et al. 2022, arXiv:2203.04810 (Graphormer), section 2.2, as used by Equiformer: one w and b for all
        pairs of elements; σ is the absolute value of its parameter, plus 1e-5.
    """

    def __init__(self, width: int, cutoff: float) -> None:
        super().__init__()
        check_sizes(self, width=width)
        check_positive(self, cutoff=cutoff)
        self.width, self.cutoff = width, float(cutoff)
        self.mean = nn.Parameter(torch.empty(width).uniform_(0, 1))
        self.std = nn.Parameter(torch.empty(width).uniform_(1 / width, 1))
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    @classmethod
    def example(cls) -> Self:
        return cls(width=8, cutoff=4.0)

    def forward(self, lengths: Tensor) -> Tensor:
        weight, bias, mean, std = (value.to(lengths.dtype) for value in (self.weight, self.bias, self.mean, self.std))
        position = weight * (lengths / self.cutoff).unsqueeze(-1) + bias  # [E, 1]
        std = std.abs() + 1e-5
        density = ((position - mean) / std).square().mul(-0.5).exp()  # [E, K]
        return density / (math.sqrt(2 * math.pi) * std)


class SigmoidBasis(RadialFunction):
    """``σ(t_k) + s t_k`` with ``t_k = β (r - μ_k)`` and centres from 0 to the cutoff.

    Args:
        width: number K of functions, at least 2.
        cutoff: last centre in Å.
        sharpness: β times the spacing of the centres.
        slope: slope s; 0.001 in the published "linearsigmoid".

    Shapes:
        lengths: [E] Å. Returns [E, K].

    Raises:
        InputError: width is less than 2, or the cutoff is not positive.

    Source:
        Zitnick et al., NeurIPS 2022, arXiv:2206.14331, and its code.
    """

    centers: Tensor

    def __init__(self, width: int, cutoff: float, sharpness: float = 1.0, slope: float = 0.0) -> None:
        super().__init__()
        check_sizes(self, least=2, width=width)  # the scale is the spacing of the centres
        check_positive(self, cutoff=cutoff, sharpness=sharpness)
        self.width, self.slope, self.cutoff = width, slope, float(cutoff)
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

    Raises:
        InputError: a number is out of range.

    Source:
        Zitnick et al., NeurIPS 2022, arXiv:2206.14331, and its code ("silu").
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        check_sizes(self, width=width)
        self.width = width
        self.linear = nn.Linear(1, width)

    @classmethod
    def example(cls) -> Self:
        return cls(width=6)

    def forward(self, lengths: Tensor) -> Tensor:
        weight, bias = self.linear.weight.to(lengths.dtype), self.linear.bias.to(lengths.dtype)
        return nn.functional.silu(nn.functional.linear(lengths.unsqueeze(-1), weight, bias))
