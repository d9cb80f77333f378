"""Real spherical harmonics of edge directions, differentiable to any order."""

from __future__ import annotations

import e3nn
import torch
from e3nn import o3
from torch import Tensor

from geoeq.errors import InputError

__all__ = ["MAX_LMAX", "harmonics"]

#: Highest degree of e3nn's spherical harmonics.
MAX_LMAX = 11


def _polynomials() -> tuple[o3.SphericalHarmonics, ...]:
    # Plain Python instead of TorchScript: supports torch.compile and derivatives of any order.
    mode = e3nn.get_optimization_defaults()["jit_mode"]
    e3nn.set_optimization_defaults(jit_mode="eager")
    degrees = range(MAX_LMAX + 1)
    try:
        return tuple(o3.SphericalHarmonics([*degrees[: lmax + 1]], False, "component") for lmax in degrees)
    finally:
        e3nn.set_optimization_defaults(jit_mode=mode)


_POLYNOMIALS = _polynomials()


def harmonics(vectors: Tensor, lengths: Tensor, lmax: int) -> Tensor:
    """Return the real spherical harmonics of directions, in e3nn's order, with ``|Y_l|² = 2l + 1`` ("component").

    A zero vector has no direction: its harmonics above degree 0 are zero, and so are their derivatives of every order,
    which keeps forces finite.

    Shapes:
        vectors: [E, 3]. lengths: [E], as returned by ``edge_lengths``. Returns [E, (lmax + 1)²].

    Raises:
        InputError: lmax is negative or larger than ``MAX_LMAX``.
    """
    if lmax == 0:
        return torch.ones_like(lengths).unsqueeze(-1)
    if not 0 < lmax <= MAX_LMAX:
        raise InputError(f"lmax is {lmax}; spherical harmonics are available from 0 to {MAX_LMAX}.")
    zero = (lengths == 0).unsqueeze(-1)
    unit = torch.where(zero, 0.0, vectors / torch.where(zero, 1.0, lengths.unsqueeze(-1)))  # [E, 3]
    result: Tensor = _POLYNOMIALS[lmax](unit)
    return result
