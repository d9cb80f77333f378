"""Envelopes: functions that vanish smoothly at the cutoff."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from geoeq.errors import InputError
from geoeq.layers.layer import RadialFunction

__all__ = ["CosineEnvelope", "PolynomialEnvelope", "positive_cutoff"]


def positive_cutoff(cutoff: float) -> float:
    """Return the cutoff as a float.

    Raises:
        InputError: the cutoff is not a positive, finite number.
    """
    if not (cutoff > 0 and math.isfinite(cutoff)):
        raise InputError(f"cutoff must be a positive number of Å, not {cutoff}.")
    return float(cutoff)


class CosineEnvelope(RadialFunction):
    """``(cos(π r / cutoff) + 1) / 2`` inside the cutoff, 0 outside.

    Value and slope vanish at the cutoff; the curvature is discontinuous.

    Args:
        cutoff: cutoff in Å.

    Shapes:
        lengths: [E] Å. Returns [E, 1].

    Source:
        Behler & Parrinello, PRL 98, 146401 (2007), eq. 4.
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = positive_cutoff(cutoff)
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

    Source:
        Gasteiger et al., ICLR 2020, arXiv:2003.03123, eq. 8. Differs: no division by the distance.
    """

    def __init__(self, cutoff: float, power: int = 6) -> None:
        super().__init__()
        if power < 2:
            raise InputError(f"power must be at least 2 to be smooth at zero distance, not {power}.")
        self.cutoff = positive_cutoff(cutoff)
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
