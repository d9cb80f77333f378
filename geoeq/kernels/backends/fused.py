"""Tensor products by the kernels of a backend, where it has them for the paths; else in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from geoeq.kernels.backend import Blocks, EdgeTensors, Segments
from geoeq.kernels.backends.plain_products import ReferenceBackend
from geoeq.kernels.fused_kernels import FusedKernels, register_kernels
from geoeq.kernels.llvm.backend import LLVM
from geoeq.kernels.operators.sums import fused_softmax, fused_weighted_sum
from geoeq.kernels.operators.tensor_product import fused_conv, fused_radial_conv
from geoeq.kernels.paths import Paths
from geoeq.kernels.triton.backend import Triton

__all__ = ["LLVMBackend", "TritonBackend"]


class _Fused(ReferenceBackend):
    name: ClassVar[str]
    kernels: ClassVar[type[FusedKernels]]
    #: Numbers below which plain PyTorch is as fast.
    smallest_sum: ClassVar[int] = 0
    smallest_softmax: ClassVar[int] = 0

    @classmethod
    def available(cls) -> str | None:
        return cls.kernels.available()

    @classmethod
    def supports(cls, values: Tensor) -> bool:
        return cls.kernels.supports(values)

    @classmethod
    def tensor_product(cls, x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
        if not cls.kernels.takes(paths):
            return super().tensor_product(x, harmonics, weights, paths)
        divided = cls.kernels.takes(paths.by_block)
        out = fused_conv(x, harmonics, weights, _each_alone(x), paths.by_block if divided else paths, cls.name)
        if divided:
            parts = out.split([x.shape[0] * dim * channels for dim, channels in paths.out_blocks])
        else:
            parts = out.split([dim * channels for dim, channels in paths.out_blocks], dim=1)
        return tuple(part.reshape(x.shape[0], *block) for part, block in zip(parts, paths.out_blocks, strict=True))

    @classmethod
    def tensor_product_linear(
        cls, x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        if not cls.kernels.takes(paths):
            return super().tensor_product_linear(x, harmonics, weights, paths, maps)
        blocks = cls.tensor_product(x, harmonics, weights, paths)
        return tuple(block @ matrix for block, matrix in zip(blocks, maps, strict=True))

    @classmethod
    def attended_product(
        cls, x: Tensor, harmonics: Tensor, weights: Tensor, edges: Segments, paths: Paths, maps: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        if edges.row_pointers is None or not cls.kernels.takes(paths):
            return super().attended_product(x, harmonics, weights, edges, paths, maps)
        of_edges = EdgeTensors.from_edges(edges.index, edges.row_pointers)
        sums = fused_conv(x, harmonics, weights, of_edges, paths, cls.name)  # first, for each head
        rows, heads = edges.num_segments, paths.heads
        parts = sums.split([heads * rows * dim * channels for dim, channels in paths.out_blocks])
        found = []
        for part, (dim, channels), matrix in zip(parts, paths.out_blocks, maps, strict=True):
            of_heads = matrix.unflatten(1, (heads, -1)).transpose(0, 1)  # [H, channels, V / H]
            mapped = torch.bmm(part.view(heads, rows * dim, channels), of_heads)
            found.append(mapped.transpose(0, 1).reshape(rows, dim, matrix.shape[1]))
        return tuple(found)

    @classmethod
    def tensor_product_conv(
        cls, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        if not cls.kernels.takes(paths):
            return super().tensor_product_conv(x, harmonics, weights, edges, paths)
        return fused_conv(x, harmonics, weights, edges, paths, cls.name)

    @classmethod
    def radial_tensor_product_conv(
        cls, x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        if not cls.kernels.takes(paths):
            return super().radial_tensor_product_conv(x, harmonics, hidden, matrix, edges, paths)
        return fused_radial_conv(x, harmonics, hidden, matrix, edges, paths, cls.name)

    @classmethod
    def weighted_sum(cls, values: Tensor, weights: Tensor, segments: Segments, blocks: Blocks) -> Tensor:
        if segments.row_pointers is None or _is_small(values, cls.smallest_sum):
            return super().weighted_sum(values, weights, segments, blocks)
        return fused_weighted_sum(values, weights, segments, blocks, cls.name)

    @classmethod
    def segment_softmax(cls, values: Tensor, segments: Segments) -> Tensor:
        if segments.row_pointers is None or not values.numel() or _is_small(values, cls.smallest_softmax):
            return super().segment_softmax(values, segments)
        flat = values.unsqueeze(1) if values.dim() == 1 else values.flatten(1)
        return fused_softmax(flat, segments, cls.name).view(values.shape)


def _is_small(values: Tensor, smallest: int) -> bool:
    return not torch.compiler.is_compiling() and values.numel() < smallest


def _each_alone(rows: Tensor) -> EdgeTensors:
    """Every row an edge from itself to itself."""
    pointers = torch.arange(rows.shape[0] + 1, device=rows.device)
    return EdgeTensors.from_edges(pointers[:-1], pointers)


class LLVMBackend(_Fused):
    """For the CPU: kernels that LLVM compiles for the paths at hand. Plain sums are those of the reference."""

    name = "llvm"
    kernels = LLVM
    smallest_sum = 100_000
    smallest_softmax = 5_000


class TritonBackend(_Fused):
    """For NVIDIA GPUs: kernels that Triton compiles for the paths at hand. Plain sums are those of the reference."""

    name = "triton"
    kernels = Triton


register_kernels("llvm", LLVM)
register_kernels("triton", Triton)
