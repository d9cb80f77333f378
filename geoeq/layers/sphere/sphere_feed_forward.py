"""The feed-forward network of EquiformerV2."""

from __future__ import annotations

from torch import Tensor, nn

from geoeq.layers.irreps.linear import DegreeLinear
from geoeq.layers.sphere.sphere_activation import SphereActivation

__all__ = ["SphereFeedForward"]


class SphereFeedForward(nn.Module):
    """A linear map of each degree, a nonlinearity of functions on the sphere, a linear map of each degree.

    Scalars that the nonlinearity needs come from the scalars of the input by a linear map.

    Args:
        lmax: highest degree.
        channels: number C of channels.
        hidden: number H of channels in between.
        channels_out: number D of channels of the result.
        activation: the nonlinearity, of H channels.

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
        """What the last linear map is given, [N, (lmax + 1)², H]."""
        scalars = x[:, 0] if self.scalars is None else self.scalars(x[:, 0])  # [N, extra * H]
        result: Tensor = self.activation(self.first(x), scalars)
        return result

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.hidden(x))
        return result
