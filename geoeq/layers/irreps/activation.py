"""Pointwise activations of scalars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from e3nn import o3
from e3nn.math import normalize2mom
from torch import Tensor
from torch.nn import functional

from geoeq.constants import constant
from geoeq.errors import InputError, check_name
from geoeq.layers.layer import Rowwise

__all__ = ["Activation", "activation_function", "activation_scale"]

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
}
_EVEN, _ODD = {"abs"}, {"tanh"}


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """Return the activation function of this name.

    Raises:
        InputError: the name is unknown.
    """
    check_name("activation", name, _FUNCTIONS)
    return _FUNCTIONS[name]


@constant
def activation_scale(name: str) -> float:
    """Return the factor for a second moment of one with normally distributed input, as e3nn computes it."""
    return float(normalize2mom(activation_function(name)).cst)


class Activation(Rowwise):
    """A pointwise activation of scalars.

    Args:
        irreps: irreps of the input; only scalars. An activation of pseudoscalars (0o) must be odd, or even; an even one
            makes them 0e.
        activation: "silu", "sigmoid", "tanh", "relu", "softplus" or "abs".
        normalize: whether to multiply by the factor that preserves a variance of one, as in e3nn.

    Shapes:
        x: [N, irreps.dim]. Returns the same.

    Raises:
        InputError: the activation is unknown, or not equivariant on one of the irreps.
    """

    def __init__(self, irreps: o3.Irreps | str, activation: str = "silu", normalize: bool = True) -> None:
        super().__init__()
        self.irreps_in = o3.Irreps(irreps)
        self.function = activation_function(activation)
        high = [str(ir) for _, ir in self.irreps_in if ir.l > 0]
        if high:
            raise InputError(
                f"A pointwise '{activation}' of {', '.join(high)} (in {self.irreps_in}) is not equivariant; "
                "use a Gate or a NormActivation."
            )
        odd = any(ir.p == -1 for _, ir in self.irreps_in)
        if odd and activation not in _EVEN | _ODD:
            raise InputError(
                f"'{activation}' is neither even nor odd: applied to the 0o of {self.irreps_in}, it has no parity."
            )
        self.irreps_out = o3.Irreps([(mul, "0e" if activation in _EVEN else ir) for mul, ir in self.irreps_in])
        self.scale = activation_scale(activation) if normalize else 1.0

    @classmethod
    def example(cls) -> Self:
        return cls("3x0e + 2x0o", "tanh")

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) * self.scale
