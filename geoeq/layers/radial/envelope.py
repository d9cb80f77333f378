"""Envelopes: functions that vanish smoothly at the cutoff."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from geoeq.errors import check_positive, check_sizes
from geoeq.layers.layer import RadialFunction

__all__ = ["CosineEnvelope", "PolynomialEnvelope"]


class CosineEnvelope(RadialFunction):
    """``(cos(π r / cutoff) + 1) / 2`` inside the cutoff, 0 outside.

    Value and slope vanish at the cutoff; the curvature is discontinuous.

    Args:
        cutoff: cutoff in Å.

    Shapes:
        lengths: [E] Å. Returns [E, 1].

    Raises:
        InputError: a number is out of range.

    Source:
        Behler & Parrinello, PRL 98, 146401 (2007), eq. 4.
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        check_positive(self, cutoff=cutoff)
        self.cutoff = float(cutoff)
        self.width = 1

    @classmethod
    def example(cls) -> Self:
        return cls(cutoff=4.0)

    def forward(self, lengths: Tensor) -> Tensor:
        scaled = (lengths / self.cutoff).clamp(max=1).unsqueeze(-1)  # [E, 1]
        return (scaled.mul(math.pi).cos() + 1) / 2


class PolynomialEnvelope(RadialFunction):
    """``1 - (p+1)(p+2)/2 d^p + p(p+2) d^(p+1) - p(p+1)/2 d^(p+2)`` with ``d = r / cutoff``, 0 outside.

    Value, slope and curvature vanish at the cutoff, so forces are smooth there.

    Args:
        cutoff: cutoff in Å.
        power: exponent p; the larger it is, the closer to the cutoff the envelope falls.

    Shapes:
        lengths: [E] Å. Returns [E, 1].

    Raises:
        InputError: a number is out of range.

    Source:
        Gasteiger et al., ICLR 2020, arXiv:2003.03123, eq. 8. Differs: no division by the distance.
    """

    def __init__(self, cutoff: float, power: int = 6) -> None:
        super().__init__()
        check_sizes(self, least=2, power=power)  # less is not smooth at zero distance
        check_positive(self, cutoff=cutoff)
        self.cutoff = float(cutoff)
        self.power = power
        self.width = 1

    @classmethod
    def example(cls) -> Self:
        return cls(cutoff=4.0)

    def forward(self, lengths: Tensor) -> Tensor:
        d = (lengths / self.cutoff).clamp(max=1).unsqueeze(-1)  # [E, 1]
        # The same polynomial as (1 - d)³ Σ_{k < p} (k + 1)(k + 2) / 2 d^k, which rounding cannot make negative.
        inner = torch.zeros_like(d)
        for k in reversed(range(self.power)):
            inner = inner * d + (k + 1) * (k + 2) / 2
        return (1 - d).pow(3) * inner
