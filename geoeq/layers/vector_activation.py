"""The nonlinearity of vector neurons: what a vector has along a learned direction goes through a function."""

from __future__ import annotations

from typing import Self

from e3nn import o3
from torch import Tensor, nn

from geoeq.errors import InputError
from geoeq.layers.irreps.activation import activation_function
from geoeq.layers.layer import Rowwise

__all__ = ["VectorActivation"]


class VectorActivation(Rowwise):
    """``v + (φ(t) - t) d`` with ``t = v·d``, for every channel with a direction d of its own.

    Directions are linear maps of all channels, d = U v over its length, so that they turn with the input. With
    φ = "relu" the half space behind d is projected to its border, which is the VN-ReLU of the paper; a smooth φ has
    no kink there. Where U v is much shorter than ε the function is all but linear.

    Args:
        channels: number C of vectors.
        activation: φ, see ``Activation``.
        eps: of the smooth length ``|d|² = Σ d_k² + ε²``.

    Shapes:
        x: [.., 3 C], irreps ``Cx1o``. Returns the same.

    Raises:
        InputError: φ is unknown, or ε is not positive.

    Source:
        Deng et al., ICCV 2021, arXiv:2104.12229, section 3.2. Differs: any φ; the length is smooth, and the linear map
        before it is ``Linear``.
    """

    def __init__(self, channels: int, activation: str = "silu", eps: float = 0.1) -> None:
        super().__init__()
        if eps <= 0:
            raise InputError(f"eps must be positive, not {eps}: a direction has no derivative at zero without it.")
        self.irreps_in = self.irreps_out = o3.Irreps(f"{channels}x1o")
        self.channels, self.eps = channels, eps
        self.function = activation_function(activation)
        self.directions = nn.Linear(channels, channels, bias=False)

    @classmethod
    def example(cls) -> Self:
        return cls(4)

    def forward(self, x: Tensor) -> Tensor:
        vectors = x.unflatten(-1, (self.channels, 3))  # [.., C, 3]
        directions: Tensor = self.directions(vectors.mT).mT
        directions = directions / (directions.square().sum(-1, keepdim=True) + self.eps**2).sqrt()
        along = (vectors * directions).sum(-1, keepdim=True)  # [.., C, 1]
        result: Tensor = vectors + (self.function(along) - along) * directions
        return result.flatten(-2)
