"""The feed-forward network of EquiformerV2."""

from __future__ import annotations

from torch import Tensor, nn

from geoeq.layers.irreps.linear import DegreeLinear
from geoeq.layers.sphere.sphere_activation import SphereActivation

__all__ = ["SphereFeedForward"]


class SphereFeedForward(nn.Module):
    """A nonlinearity of functions on the sphere between two linear maps of each degree.

    The extra scalars of the nonlinearity are a linear map of the input's scalars.

    Args:
        lmax: highest degree.
        channels: number C of channels.
        hidden: number H of hidden channels.
        channels_out: number D of channels of the result.
        activation: nonlinearity of the H hidden channels.

    Shapes:
        x: [N, (lmax + 1)², C]. Returns [N, (lmax + 1)², D].

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059, section 4.4 and figure 2.
    """

    def __init__(self, lmax: int, channels: int, hidden: int, channels_out: int, activation: SphereActivation) -> None:
        super().__init__()
        self.first = DegreeLinear(channels, hidden, lmax)
        self.scalars = nn.Linear(channels, activation.extra * hidden) if activation.extra else None
        self.activation = activation
        self.last = DegreeLinear(hidden, channels_out, lmax)
        if self.scalars is not None:
            nn.init.zeros_(self.scalars.bias)

    def hidden(self, x: Tensor) -> Tensor:
        """Return the input of the last linear map, [N, (lmax + 1)², H]."""
        scalars = x[:, 0] if self.scalars is None else self.scalars(x[:, 0])  # [N, extra * H]
        result: Tensor = self.activation(self.first(x), scalars)
        return result

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.hidden(x))
        return result
