"""Sums by the package torch-scatter (extra ``scatter``): the only file that imports it."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from geoeq.errors import MissingExtraError
from geoeq.kernels.backends.reference import Backend
from geoeq.kernels.segments import Segments
from geoeq.resources import import_extra

__all__ = ["TorchScatter"]


@functools.cache
def _module() -> ModuleType | MissingExtraError:
    try:
        return import_extra("torch_scatter", "scatter")
    except MissingExtraError as error:
        return error
    except OSError as error:  # built against another torch: the library does not load
        return MissingExtraError(f"torch-scatter does not load with this torch ({error}); rebuild it.")


class _SegmentSum(torch.autograd.Function):
    """``segment_csr`` with a differentiable gradient: second derivatives of the package's own silently vanish."""

    @staticmethod
    def forward(values: Tensor, index: Tensor, row_pointers: Tensor) -> Tensor:
        return _loaded().segment_csr(values, row_pointers, reduce="sum")  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (index,) = ctx.saved_tensors
        return gradient.index_select(0, index), None, None


class TorchScatter(Backend):
    """``segment_csr`` over sorted rows, ``scatter`` over unsorted ones.

    It is used only when forced, because its gradient of maxima is not differentiable. torch.compile cannot trace it, so
    the reference computes the sums there.
    """

    name = "torch_scatter"

    def available(self) -> str | None:
        module = _module()
        return str(module) if isinstance(module, MissingExtraError) else None

    def supports(self, values: Tensor) -> bool:
        return False

    def segment_sum(self, values: Tensor, segments: Segments) -> Tensor:
        if torch.compiler.is_compiling():
            return super().segment_sum(values, segments)
        module = _loaded()
        if segments.row_pointers is not None:
            return _SegmentSum.apply(values, segments.index, segments.row_pointers)  # type: ignore[no-any-return, no-untyped-call]
        return module.scatter(values, segments.index, 0, dim_size=segments.num_segments, reduce="sum")  # type: ignore[no-any-return]

    def segment_max(self, values: Tensor, segments: Segments) -> Tensor:
        if torch.compiler.is_compiling():
            return super().segment_max(values, segments)
        module = _loaded()
        if segments.row_pointers is not None:
            return module.segment_csr(values, segments.row_pointers, reduce="max")  # type: ignore[no-any-return]
        return module.scatter(values, segments.index, 0, dim_size=segments.num_segments, reduce="max")  # type: ignore[no-any-return]


def _loaded() -> ModuleType:
    module = _module()
    if isinstance(module, MissingExtraError):
        raise module
    return module
