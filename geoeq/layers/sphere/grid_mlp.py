"""A network at every point of the sphere."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from geoeq.layers.chunked import chunked
from geoeq.layers.sphere.s2_grid import S2Grid
from geoeq.layers.sphere.sphere_activation import SphereActivation, SphereNonlinearity, sphere_activation

__all__ = ["FeedForwardKind", "GridMLP", "feed_forward_activation"]

#: What stands between the linear maps of a feed-forward network.
FeedForwardKind = Literal["s2", "separable_s2", "gate", "grid_mlp", "separable_grid_mlp"]


#: nodes at a time, so that their values on the grid stay in a cache of some MB.
CHUNK = 64


class GridMLP(SphereActivation):
    """Values on a grid through three linear maps of the channels with SiLU between them, the same at every point.

    The values exist for some nodes at a time, and are computed again for derivatives. Symmetric to an error that falls
    with the resolution.

    Args:
        lmax: highest degree.
        channels: number C.
        resolution: of ``S2Grid``.
        separable: take ``SiLU(scalars)`` as the new scalars.

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
    # The maps of channels at both ends commute with the grid, which has several times more points than coefficients.
    values = nn.functional.silu(torch.matmul(to_grid, nn.functional.linear(x, first)))  # [N, P, C]
    values = nn.functional.silu(nn.functional.linear(values, second))
    return nn.functional.linear(torch.matmul(from_grid, values), third)


def feed_forward_activation(
    kind: FeedForwardKind, lmax: int, channels: int, resolution: int | None = None
) -> SphereActivation:
    """The nonlinearity of that name.

    Raises:
        InputError: the name is none of ``FeedForwardKind``, or the grid is too small.
    """
    if kind in ("grid_mlp", "separable_grid_mlp"):
        return GridMLP(lmax, channels, resolution, separable=kind == "separable_grid_mlp")
    plain: SphereNonlinearity = kind  # type: ignore[assignment]  # an unknown name is refused there
    return sphere_activation(plain, lmax, resolution=resolution)
