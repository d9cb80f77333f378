"""Envelopes: functions that vanish smoothly at the cutoff."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from geoeq.errors import InputError, check_positive, check_sizes
from geoeq.layers.layer import RadialFunction

__all__ = ["CosineEnvelope", "PolynomialEnvelope", "XPLOREnvelope"]


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


class XPLOREnvelope(RadialFunction):
    """1 up to an onset, then ``(c² - r²)² (c² + 2 r² - 3 o²) / (c² - o²)³`` up to the cutoff c, 0 outside.

    Value and slope are continuous; the curvature is discontinuous at the onset o and at the cutoff.

    Args:
        cutoff: cutoff in Å.
        onset: distance in Å at which the decay begins, less than the cutoff.

    Shapes:
        lengths: [E] Å. Returns [E, 1].

    Raises:
        InputError: a number is out of range, or the onset is not below the cutoff.

    Source:
        Brooks et al., J. Comput. Chem. 4, 187 (1983), eq. 12 (the switching function of CHARMM and X-PLOR).
    """

    def __init__(self, cutoff: float, onset: float) -> None:
        super().__init__()
        check_positive(self, cutoff=cutoff, onset=onset)
        if onset >= cutoff:
            raise InputError(f"XPLOREnvelope: onset is {onset} Å; it must be less than the cutoff, {cutoff} Å.")
        self.cutoff, self.onset = float(cutoff), float(onset)
        self.width = 1

    @classmethod
    def example(cls) -> Self:
        return cls(cutoff=4.0, onset=3.5)

    def forward(self, lengths: Tensor) -> Tensor:
        start = (self.onset / self.cutoff) ** 2
        square = (lengths / self.cutoff).square().clamp(min=start, max=1).unsqueeze(-1)  # [E, 1]
        return (1 - square).square() * (1 + 2 * square - 3 * start) / (1 - start) ** 3
