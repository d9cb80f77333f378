"""Feed-forward networks on the sphere: a pointwise network on a grid, and EquiformerV2's with any nonlinearity."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from geoeq.layers.chunked import chunked
from geoeq.layers.irreps.linear import DegreeLinear
from geoeq.layers.sphere.s2_grid import S2Grid
from geoeq.layers.sphere.sphere_activation import SphereActivation, SphereNonlinearity, sphere_activation

__all__ = [
    "FeedForwardKind",
    "GridMLP",
    "SphereFeedForward",
    "feed_forward_activation",
]


#: The nonlinearity between the linear maps of a feed-forward network.
FeedForwardKind = Literal["s2", "separable_s2", "gate", "grid_mlp", "separable_grid_mlp"]

#: Nodes per chunk: few enough that their values on the grid fit in a cache of some MB.
CHUNK = 64


class GridMLP(SphereActivation):
    """Three linear maps of the channels with SiLU between them, applied at each point of a grid.

    Values are computed in chunks of nodes, and again in the backward pass. The result is equivariant up to an error
    that falls with the resolution.

    Args:
        lmax: highest degree.
        channels: number C.
        resolution: resolution of the grid, as for ``S2Grid``.
        separable: whether ``SiLU(scalars)`` are the new scalars.

    Shapes:
        x: [N, (lmax + 1)², C]. scalars: [N, C] if separable, else [N, 0]. Returns [N, (lmax + 1)², C].

    Source:
        Liao et al., ICLR 2024, arXiv:2306.12059 (``use_grid_mlp`` of their code).
    """

    def __init__(
        self, lmax: int, channels: int, resolution: int | tuple[int, int] | None = None, separable: bool = True
    ) -> None:
        super().__init__()
        self.grid = S2Grid(lmax, resolution=resolution)
        self.extra = int(separable)
        self.network = nn.Sequential(
            nn.Linear(channels, channels, bias=False),
            nn.SiLU(),
            nn.Linear(channels, channels, bias=False),
            nn.SiLU(),
            nn.Linear(channels, channels, bias=False),
        )

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        grids = [self.grid.to_grid.to(x.dtype), self.grid.from_grid.to(x.dtype)]
        y = chunked(_on_grid, [x], [*grids, *self.network.parameters()], CHUNK)
        return torch.cat([nn.functional.silu(scalars).unsqueeze(1), y[:, 1:]], dim=1) if self.extra else y


def _on_grid(x: Tensor, to_grid: Tensor, from_grid: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    # The first and last maps commute with the grid; coefficients have several times fewer rows than grid points.
    values = nn.functional.silu(torch.matmul(to_grid, nn.functional.linear(x, first)))  # [N, P, C]
    values = nn.functional.silu(nn.functional.linear(values, second))
    return nn.functional.linear(torch.matmul(from_grid, values), third)


def feed_forward_activation(
    kind: FeedForwardKind, lmax: int, channels: int, resolution: int | None = None
) -> SphereActivation:
    """Return the nonlinearity of this name.

    Raises:
        InputError: the name is not in ``FeedForwardKind``, or the grid is too small.
    """
    if kind in ("grid_mlp", "separable_grid_mlp"):
        return GridMLP(lmax, channels, resolution, separable=kind == "separable_grid_mlp")
    name: SphereNonlinearity = kind  # type: ignore[assignment]  # sphere_activation refuses unknown names
    return sphere_activation(name, lmax, resolution=resolution)


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
