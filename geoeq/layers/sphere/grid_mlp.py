"""A pointwise network on the sphere, and the choice of a feed-forward nonlinearity by name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from geoeq.layers.chunked import chunked
from geoeq.layers.sphere.s2_grid import S2Grid
from geoeq.layers.sphere.sphere_activation import SphereActivation, SphereNonlinearity, sphere_activation

__all__ = ["FeedForwardKind", "GridMLP", "feed_forward_activation"]

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
