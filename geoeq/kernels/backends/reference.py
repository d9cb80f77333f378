"""Plain PyTorch: on any device, differentiable to any order, and the judge of the other backends."""

from __future__ import annotations

import torch
from torch import Tensor

from geoeq.kernels.backend import Blocks, Segments

__all__ = ["Reference"]


class Reference:
    """Sums with ``index_add`` and ``scatter_reduce``; always available."""

    @staticmethod
    def available() -> str | None:
        return None

    @staticmethod
    def supports(values: Tensor) -> bool:
        return True

    @staticmethod
    def segment_sum(values: Tensor, segments: Segments) -> Tensor:
        if torch.compiler.is_compiling():  # compiled code would add all segments into the one number below
            zeros = values.new_zeros(segments.num_segments, *values.shape[1:])
            return zeros.index_add(0, segments.index, values)
        zero = values.new_zeros(())  # one number, read again and again: index_add makes the array by itself
        return zero.expand(segments.num_segments, *values.shape[1:]).index_add(0, segments.index, values)

    @staticmethod
    def segment_max(values: Tensor, segments: Segments) -> Tensor:
        largest = values.new_zeros((segments.num_segments, *values.shape[1:]))
        index = segments.index.view(-1, *[1] * (values.dim() - 1)).expand_as(values)
        return largest.scatter_reduce(0, index, values, "amax", include_self=False)

    @classmethod
    def segment_softmax(cls, values: Tensor, segments: Segments) -> Tensor:
        largest = cls.segment_max(values.detach(), segments)
        weights = (values - largest.index_select(0, segments.index)).exp()
        return weights / cls.segment_sum(weights, segments).index_select(0, segments.index)

    @classmethod
    def weighted_sum(cls, values: Tensor, weights: Tensor, segments: Segments, blocks: Blocks) -> Tensor:
        heads, sums = weights.shape[1], []
        for part, (rows, channels) in zip(values.split([r * c for r, c in blocks], dim=1), blocks, strict=True):
            split = part.reshape(-1, rows, heads, channels // heads)
            sums.append(cls.segment_sum((split * weights[:, None, :, None]).flatten(1), segments))
        return torch.cat(sums, dim=1)
