"""All kernels for NVIDIA GPUs; convolutions with explicit weights are implemented here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from geoeq.kernels.operators.tensor_product import EdgeFactors
from geoeq.kernels.paths import Paths
from geoeq.kernels.segments import EdgeTensors
from geoeq.kernels.triton.compiler import unavailable
from geoeq.kernels.triton.edge_kernel import edge_kernel
from geoeq.kernels.triton.kernel import Kernel
from geoeq.kernels.triton.node_kernels import receiver_kernel, sender_kernel
from geoeq.kernels.triton.radial import Radial
from geoeq.kernels.triton.sums import Sums
from geoeq.kernels.triton.tiles import SCALARS, fitting, launch_fastest, reads_all, tiles

__all__ = ["Triton", "kernels_for"]

#: Edges per program: edges of one receiver are consecutive and read the same cotangent.
_EDGES = 8


@functools.cache
def kernels_for(make: Callable[..., Kernel], paths: Paths, dtype: torch.dtype, *options: bool) -> tuple[Kernel, ...]:
    """Return the kernel of ``make`` for every tile size worth timing."""
    sizes = tiles(paths, _EDGES if make is edge_kernel else 1)
    return fitting([make(paths, SCALARS[dtype], tile, *options) for tile in sizes])


class Triton(Radial, Sums):
    """``FusedKernels`` for NVIDIA GPUs: only requested results are written to arrays that have a row per edge.

    Sums have a fixed order, except that the gradient with respect to harmonics, a sum over channels, depends on the
    tile size. If torch's deterministic algorithms are enabled, tile sizes are not chosen by timing and every run gives
    the same result.
    """

    def available(self) -> str | None:
        return unavailable()

    def supports(self, values: Tensor) -> bool:
        return values.device.type == "cuda" and values.dtype in SCALARS

    def takes(self, paths: Paths) -> bool:
        return all(path.mode == "uvu" for path in paths.paths) and not paths.divided and paths.covered

    def conv(self, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        out = x.new_empty(x.shape[0], paths.out_dim)
        kernels = kernels_for(receiver_kernel, paths, x.dtype, weights.numel() > 0)
        launch_fastest(kernels, x.shape[0], (x, harmonics, weights, edges.sender, edges.row_pointers, out))
        return out

    def grad_x(self, g: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        order, pointers = edges.by_sender()
        x = (g.new_empty if reads_all(paths) else g.new_zeros)(g.shape[0], paths.x_dim)
        kernels = kernels_for(sender_kernel, paths, g.dtype, weights.numel() > 0)
        launch_fastest(kernels, g.shape[0], (g, harmonics, weights, edges.receiver, order, pointers, x))
        return x

    def grad_edges(
        self, factors: EdgeFactors, edges: EdgeTensors, paths: Paths, wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor]:
        x, harmonics, weights, g = factors
        by_harmonics, by_weights = wanted
        gradients = (
            torch.empty_like(harmonics) if by_harmonics else harmonics.new_empty(0),
            torch.empty_like(weights) if by_weights else weights.new_empty(0),
        )
        kernels = kernels_for(edge_kernel, paths, x.dtype, weights.numel() > 0, by_harmonics, by_weights)
        count = harmonics.shape[0]
        arguments = (x, harmonics, weights, g, edges.sender, edges.receiver, *gradients, count)
        launch_fastest(kernels, count, arguments)
        return gradients
