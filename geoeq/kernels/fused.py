"""Tensor products by the kernels of a backend, where it has them for the paths; else in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from geoeq.kernels.backend import EdgeTensors
from geoeq.kernels.contractions import Contractions, fused_conv, register_contractions
from geoeq.kernels.llvm.backend import LLVM
from geoeq.kernels.paths import Paths
from geoeq.kernels.tensor_product import ReferenceBackend
from geoeq.kernels.triton.backend import Triton

__all__ = ["LLVMBackend", "TritonBackend"]


class _Fused(ReferenceBackend):
    name: ClassVar[str]
    contractions: ClassVar[type[Contractions]]

    @classmethod
    def available(cls) -> str | None:
        return cls.contractions.available()

    @classmethod
    def supports(cls, values: Tensor) -> bool:
        return cls.contractions.supports(values)

    @classmethod
    def tensor_product(cls, x: Tensor, harmonics: Tensor, weights: Tensor | None, paths: Paths) -> tuple[Tensor, ...]:
        if not cls.contractions.takes(paths):
            return super().tensor_product(x, harmonics, weights, paths)
        divided = cls.contractions.takes(paths.by_block)
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
        if not cls.contractions.takes(paths):
            return super().tensor_product_linear(x, harmonics, weights, paths, maps)
        blocks = cls.tensor_product(x, harmonics, weights, paths)
        return tuple(block @ matrix for block, matrix in zip(blocks, maps, strict=True))

    @classmethod
    def tensor_product_conv(
        cls, x: Tensor, harmonics: Tensor, weights: Tensor, edges: EdgeTensors, paths: Paths
    ) -> Tensor:
        if not cls.contractions.takes(paths):
            return super().tensor_product_conv(x, harmonics, weights, edges, paths)
        return fused_conv(x, harmonics, weights, edges, paths, cls.name)


def _each_alone(rows: Tensor) -> EdgeTensors:
    """Every row an edge from itself to itself."""
    pointers = torch.arange(rows.shape[0] + 1, device=rows.device)
    own = pointers[:-1]
    return EdgeTensors(own, own, pointers, own, pointers)


class LLVMBackend(_Fused):
    """For the CPU: kernels that LLVM compiles for the paths at hand. Sums are those of the reference."""

    name = "llvm"
    contractions = LLVM


class TritonBackend(_Fused):
    """For NVIDIA GPUs: kernels that Triton compiles for the paths at hand. Sums are those of the reference."""

    name = "triton"
    contractions = Triton


register_contractions("llvm", LLVM)
register_contractions("triton", Triton)
