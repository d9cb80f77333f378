"""Sums by the package torch-scatter (extra ``scatter``): the only file that imports it."""

from __future__ import annotations

import functools
from types import ModuleType

from torch import Tensor

from geoeq.errors import MissingExtraError
from geoeq.extras import import_extra
from geoeq.kernels.backend import Segments

__all__ = ["TorchScatter"]


@functools.cache
def _module() -> ModuleType | MissingExtraError:
    try:
        return import_extra("torch_scatter", "scatter")
    except MissingExtraError as error:
        return error
    except OSError as error:  # built against another torch: the library does not load
        return MissingExtraError(f"torch-scatter does not load with this torch ({error}); rebuild it.")


class TorchScatter:
    """``segment_csr`` over sorted rows, ``scatter`` over unsorted ones.

    It has no rule for ``torch.compile`` and its derivative is not differentiable for maxima, so it is
    used when it is asked for, and is not chosen by itself.
    """

    @staticmethod
    def available() -> str | None:
        module = _module()
        return str(module) if isinstance(module, MissingExtraError) else None

    @staticmethod
    def supports(values: Tensor) -> bool:
        return False

    @staticmethod
    def segment_sum(values: Tensor, segments: Segments) -> Tensor:
        module = _loaded()
        if segments.row_pointers is not None:
            return module.segment_csr(values, segments.row_pointers, reduce="sum")  # type: ignore[no-any-return]
        return module.scatter(values, segments.index, 0, dim_size=segments.num_segments, reduce="sum")  # type: ignore[no-any-return]

    @staticmethod
    def segment_max(values: Tensor, segments: Segments) -> Tensor:
        module = _loaded()
        if segments.row_pointers is not None:
            return module.segment_csr(values, segments.row_pointers, reduce="max")  # type: ignore[no-any-return]
        return module.scatter(values, segments.index, 0, dim_size=segments.num_segments, reduce="max")  # type: ignore[no-any-return]


def _loaded() -> ModuleType:
    module = _module()
    if isinstance(module, MissingExtraError):
        raise module
    return module
