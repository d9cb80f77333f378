"""What is computed of a training set that comes in parts, of which none is kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import InputError

__all__ = ["LeastSquares", "Mean", "RootMeanSquare", "TrainingSet", "in_parts", "known_elements"]

#: One batch of all structures, or batches that can be gone through again and again, such as a list or a loader.
TrainingSet: TypeAlias = Data | Iterable[Data]


class LeastSquares:
    """``min |x a - y|`` over rows that are added in parts, in float64.

    Only the triangle R of all ``[x y] = Q R`` is kept, to which the rows of a part are added by another QR. It has the
    singular values of all rows, so that nothing is lost; sums of products ``xᵀx`` would lose half of the digits.

    Args:
        columns: number K of columns of x.

    Attributes:
        count: rows so far.
        mean: of y so far.
        rank: of x, once it was solved; where it is the count, all is fitted exactly, and nothing is told by that.
    """

    def __init__(self, columns: int) -> None:
        self._triangle = torch.zeros(0, columns + 1, dtype=torch.float64)
        self.count, self.mean, self.rank = 0, 0.0, 0

    def add(self, rows: Tensor, values: Tensor) -> None:
        """More rows.

        Shapes:
            rows: [n, K]. values: [n].
        """
        rows, values = rows.cpu().double(), values.cpu().double()
        self.count += len(values)
        self.mean += float((values - self.mean).sum()) / max(self.count, 1)
        stacked = torch.cat([self._triangle, torch.cat([rows, values.unsqueeze(1)], dim=1)])
        used = (stacked != 0).any(0)
        triangle = torch.linalg.qr(stacked[:, used], mode="r").R
        self._triangle = triangle.new_zeros(len(triangle), len(used))
        self._triangle[:, used] = triangle

    def solve(self, constant: int | None = None) -> tuple[Tensor, float]:
        """The shortest of the best coefficients a [K], and the root mean square of what they leave.

        Args:
            constant: a column of ones; from y its mean is then taken before.
        """
        rows, values = self._triangle[:, :-1], self._triangle[:, -1]
        if constant is not None:
            values = values - self.mean * rows[:, constant]
        used = (rows != 0).any(0)
        found = rows.new_zeros(rows.shape[1])
        if used.any():
            small = torch.finfo(rows.dtype).eps * max(self.count, int(used.sum()))
            solved = torch.linalg.lstsq(rows[:, used], values.unsqueeze(1), rcond=small, driver="gelsd")
            found[used], self.rank = solved.solution.squeeze(1), int(solved.rank)
        return found, math.sqrt(float((values - rows @ found).square().sum()) / max(self.count, 1))


class Mean:
    """Of all numbers of tensors that are added one by one, in float64; ``value`` is 0 where there are none."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, values: Tensor) -> None:
        """More numbers."""
        self._total += float(values.detach().double().sum())
        self._count += values.numel()

    @property
    def value(self) -> float:
        """That of the numbers so far."""
        return self._total / max(self._count, 1)


class RootMeanSquare(Mean):
    """The root of the mean of the squares."""

    def add(self, values: Tensor) -> None:
        """More numbers."""
        super().add(values.detach().double().square())

    @property
    def value(self) -> float:
        """That of the numbers so far."""
        return math.sqrt(super().value)


def in_parts(data: TrainingSet) -> Iterable[Data]:
    """The batches of a training set.

    Raises:
        InputError: it can be gone through only once.
    """
    if isinstance(data, Data):
        return [data]
    if iter(data) is data:
        raise InputError("The training set can be gone through only once: give a batch, a list of batches or a loader.")
    return data


def known_elements(parts: Iterable[Data]) -> list[int]:
    """Atomic numbers that are there; empty for points."""
    found: set[int] = set()
    for part in parts:
        if isinstance(getattr(part, "z", None), Tensor):
            found.update(part.z.unique().tolist())
    return sorted(found)
