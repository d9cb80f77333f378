"""Convolutions on NVIDIA GPUs whose weights are computed in the kernel, from each edge's hidden layer and one matrix.

An array of weights is most of the memory traffic of a convolution: for W weights of 4 bytes per edge, a matrix product
writes 4 W bytes and each contraction reads them again. Here an edge reads 4 H bytes for H hidden columns, once in each
task (32 or 64 channels of some paths), and each contraction repeats the 2 H W operations of the product: three times as
many in float32, on tensor cores. For 128 channels of l = 0, 1 with 8 paths (W = 1024) and H = 64 this means, in the
forward pass, 0.25 KB for each of 4 or 8 tasks instead of 8 KB, and 0.13 million operations (0.39 in float32).

The matrix has 4 H W bytes, 262 KB in this example, too much to read from the L2 cache for every 16 edges. Programs of
one task are therefore consecutive, so that its part of the matrix, 8 KB for each path of 32 channels, can stay in L1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from geoeq.kernels.operators.multilinear import composed_second
from geoeq.kernels.operators.tensor_product import RadialFactors
from geoeq.kernels.paths import Paths
from geoeq.kernels.segments import EdgeTensors
from geoeq.kernels.triton.edge_kernel import radial_harmonics_kernel
from geoeq.kernels.triton.kernel import Kernel
from geoeq.kernels.triton.layer_kernels import hidden_kernel, matrix_kernel
from geoeq.kernels.triton.node_kernels import radial_receiver_kernel, radial_sender_kernel
from geoeq.kernels.triton.tiles import SCALARS, launch_fastest, radial_tiles, reads_all

__all__ = ["Radial", "radial_kernels"]

#: Channels per program of each kernel, and columns of the hidden layer multiplied at once, as registers permit. The
#: faster of two is chosen by timing; the first needs fewer registers, except with half precision.
_SIZES: dict[Callable[..., Kernel], tuple[tuple[int, int], ...]] = {
    radial_receiver_kernel: ((32, 64), (64, 64)),
    radial_sender_kernel: ((32, 64), (64, 64)),
    radial_harmonics_kernel: ((32, 16), (32, 64)),
    hidden_kernel: ((16, 64),),
    matrix_kernel: ((16, 64),),
}

#: Maximum number of programs that share the edges of the gradient by the matrix; each writes a partial sum.
_SHARES = 64

#: Minimum number of edges of each of these programs.
_EDGES = 256

#: Maximum number of programs in total, enough to keep a GPU busy.
_PROGRAMS = 4096


@functools.cache
def radial_kernels(make: Callable[..., Kernel], paths: Paths, dtype: torch.dtype, hidden: int) -> tuple[Kernel, ...]:
    """Return the kernel of ``make``, for hidden layers of this width, for every tile size worth timing."""
    sizes = _SIZES[make] if dtype.itemsize >= 4 else _SIZES[make][::-1]
    return tuple(make(paths, SCALARS[dtype], tile, hidden) for tile in radial_tiles(paths, sizes))


class Radial:
    """The radial part of ``ProductKernels`` for NVIDIA GPUs."""

    def radial_conv(self, factors: RadialFactors, edges: EdgeTensors, paths: Paths) -> Tensor:
        x, harmonics, hidden, matrix = factors
        out = x.new_empty(x.shape[0], paths.out_dim)
        kernels = radial_kernels(radial_receiver_kernel, paths, x.dtype, hidden.shape[1])
        launch_fastest(kernels, x.shape[0], (x, harmonics, hidden, matrix, edges.sender, edges.row_pointers, out))
        return out

    def radial_gradients(
        self, factors: RadialFactors, g: Tensor, edges: EdgeTensors, paths: Paths, wanted: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        x, harmonics, hidden, matrix = factors
        count, width = harmonics.shape[0], hidden.shape[1]
        ends = edges.sender, edges.receiver
        by_x, by_harmonics, by_hidden, by_matrix = (x.new_empty(0) for _ in range(4))
        if wanted[0]:
            order, pointers = edges.by_sender()
            by_x = torch.empty_like(x) if reads_all(paths) else torch.zeros_like(x)
            arguments = g, harmonics, hidden, matrix, edges.receiver, order, pointers, by_x
            launch_fastest(radial_kernels(radial_sender_kernel, paths, x.dtype, width), x.shape[0], arguments)
        if wanted[1]:
            by_harmonics = torch.empty_like(harmonics)
            launch_fastest(
                radial_kernels(radial_harmonics_kernel, paths, x.dtype, width),
                count,
                (x, harmonics, hidden, matrix, g, *ends, by_harmonics, count),
            )
        if wanted[2]:
            by_hidden = torch.empty_like(hidden)
            launch_fastest(
                radial_kernels(hidden_kernel, paths, x.dtype, width),
                count,
                (x, harmonics, matrix, g, *ends, by_hidden, count),
            )
        if wanted[3]:
            kernels = radial_kernels(matrix_kernel, paths, x.dtype, width)
            number = min(_SHARES, max(1, _PROGRAMS // kernels[0].tasks), -(-count // _EDGES))
            shares = x.new_empty(number, *matrix.shape, dtype=getattr(torch, SCALARS[x.dtype]))
            launch_fastest(kernels, number, (x, harmonics, hidden, g, *ends, shares, count))
            by_matrix = shares.sum(0).to(matrix.dtype)
        return by_x, by_harmonics, by_hidden, by_matrix

    def radial_second(
        self,
        factors: RadialFactors,
        g: Tensor,
        cotangents: Sequence[Tensor],
        edges: EdgeTensors,
        paths: Paths,
        wanted: Sequence[bool],
    ) -> tuple[Tensor, ...]:
        """Compose the result of the two methods above."""
        parts = [part if part.numel() else None for part in cotangents]

        def form(*factors: Any) -> Tensor:
            return self.radial_conv(factors, edges, paths)

        def gradients(*arguments: Any) -> tuple[Tensor, ...]:
            *factors, g, wanted = arguments
            return self.radial_gradients(tuple(factors), g, edges, paths, wanted)

        seconds = composed_second(form, gradients, (factors, g, parts, wanted))
        return tuple(
            like.new_zeros(like.shape if want else (0,)) if value is None else value
            for value, like, want in zip(seconds, (*factors, g), wanted, strict=True)
        )
