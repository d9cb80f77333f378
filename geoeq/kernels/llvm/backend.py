"""Kernels for the CPU, which are written and compiled for what is at hand."""

from __future__ import annotations

from torch import Tensor

from geoeq.kernels.llvm.compiler import unavailable
from geoeq.kernels.llvm.convolutions import Convolutions
from geoeq.kernels.llvm.launch import SCALARS
from geoeq.kernels.llvm.radial import Radial
from geoeq.kernels.llvm.sums import Sums
from geoeq.kernels.paths import Paths

__all__ = ["LLVM"]


class LLVM(Convolutions, Radial, Sums):
    """``FusedKernels``: nothing of an edge's size is written but what is asked for.

    A receiver's messages are summed by one thread in the order of its edges: the result does not depend on the number
    of threads, nor change from run to run. (Weights made inside come from torch's matrix products.)
    """

    @staticmethod
    def available() -> str | None:
        return unavailable()

    @staticmethod
    def supports(values: Tensor) -> bool:
        return values.device.type == "cpu" and values.dtype in SCALARS

    @staticmethod
    def takes(paths: Paths) -> bool:
        return all(path.mode == "uvu" for path in paths.paths)
