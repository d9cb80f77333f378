"""Backends with fused kernels: LLVM's for the CPU, Triton's for NVIDIA GPUs."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from geoeq.kernels.operators.tensor_product import FusedProducts, ProductKernels
from geoeq.kernels.operators.weighted_sums import FusedSums, SumKernels

__all__ = ["FusedBackend", "FusedKernels"]


class FusedKernels(ProductKernels, SumKernels, Protocol):
    """All kernels that a fused backend needs; ``geoeq.kernels.llvm`` and ``geoeq.kernels.triton`` generate them."""

    def available(self) -> str | None:
        """Return None if the kernels can run here, else the reason why not."""

    def supports(self, values: Tensor) -> bool:
        """Return whether the kernels are meant for the device and dtype of these values."""


class FusedBackend(FusedProducts, FusedSums):
    """Backend that computes tensor products, weighted sums and softmax with kernels compiled for the paths at hand.

    Plain sums, and products for which there are no kernels, are those of the reference.

    Args:
        name: name of the backend in the registry.
        kernels: the kernels.
        smallest_sum: number of entries of a weighted sum below which plain PyTorch is as fast.
        smallest_softmax: the same for the softmax.
    """

    kernels: FusedKernels

    def __init__(self, name: str, kernels: FusedKernels, smallest_sum: int = 0, smallest_softmax: int = 0) -> None:
        self.name, self.kernels = name, kernels
        self.smallest_sum, self.smallest_softmax = smallest_sum, smallest_softmax

    def available(self) -> str | None:
        return self.kernels.available()

    def supports(self, values: Tensor) -> bool:
        return self.kernels.supports(values)
