"""Tensor products on NVIDIA GPUs: kernels that are written in Triton's language for the paths at hand."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from geoeq.kernels.backend import EdgeTensors
from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.compiler import unavailable
from geoeq.kernels.triton.edge_kernel import edge_kernel
from geoeq.kernels.triton.kernel import Kernel
from geoeq.kernels.triton.node_kernels import receiver_kernel, sender_kernel
from geoeq.kernels.triton.radial import Radial
from geoeq.kernels.triton.sums import Sums
from geoeq.kernels.triton.tiles import SCALARS, fitting, launch_fastest, reads_all, tiles

__all__ = ["Triton", "kernels_for"]

#: Edges of one program: those of a receiver follow one another and read the same cotangent.
_EDGES = 8


@functools.cache
def kernels_for(make: Callable[..., Kernel], paths: Paths, dtype: torch.dtype, *options: bool) -> tuple[Kernel, ...]:
    """The kernel of ``make`` in the sizes that it may have."""
    sizes = tiles(paths, _EDGES if make is edge_kernel else 1)
    return fitting([make(paths, SCALARS[dtype], tile, *options) for tile in sizes])


class Triton(Radial, Sums):
    """``FusedKernels``: nothing of an edge's size is written but what is asked for.

    A sum has one order, but by harmonics, where it is over channels, that depends on the size of a program: it is the
    same in every run where torch's deterministic algorithms are asked for, as sizes are then not chosen by their time.
    """

    @staticmethod
    def available() -> str | None:
        return unavailable()

    @staticmethod
    def supports(values: Tensor) -> bool:
        return values.device.type == "cuda" and values.dtype in SCALARS

    @staticmethod
    def takes(paths: Paths) -> bool:
        return all(path.mode == "uvu" for path in paths.paths) and not paths.divided and paths.covered

    @staticmethod
    def conv(x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        out = x.new_empty(x.shape[0], paths.out_dim)
        kernels = kernels_for(receiver_kernel, paths, x.dtype, weights.numel() > 0)
        launch_fastest(kernels, x.shape[0], (x, harmonics, weights, edges.sender, edges.row_pointers, out))
        return out

    @staticmethod
    def grad_x(g: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths) -> Tensor:
        order, pointers = edges.by_sender()
        x = (g.new_empty if reads_all(paths) else g.new_zeros)(g.shape[0], paths.x_dim)
        kernels = kernels_for(sender_kernel, paths, g.dtype, weights.numel() > 0)
        launch_fastest(kernels, g.shape[0], (g, harmonics, weights, edges.receiver, order, pointers, x))
        return x

    @staticmethod
    def grad_edges(
        x: Tensor,
        harmonics: Tensor,
        weights: Tensor,
        g: Tensor,
        edges: EdgeTensors,
        paths: Paths,
        by_harmonics: bool,
        by_weights: bool,
    ) -> tuple[Tensor, Tensor]:
        found = (
            torch.empty_like(harmonics) if by_harmonics else harmonics.new_empty(0),
            torch.empty_like(weights) if by_weights else weights.new_empty(0),
        )
        kernels = kernels_for(edge_kernel, paths, x.dtype, weights.numel() > 0, by_harmonics, by_weights)
        count = harmonics.shape[0]
        arguments = (x, harmonics, weights, g, edges.sender, edges.receiver, *found, count)
        launch_fastest(kernels, count, arguments)
        return found
