"""Statistics of a training set that comes in batches, of which only one is in memory, and element references."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError
from geoeq.fields import NUM_ELEMENTS

__all__ = [
    "LeastSquares",
    "Mean",
    "References",
    "RootMeanSquare",
    "TrainingSet",
    "composition",
    "fit_references",
    "in_parts",
    "known_elements",
]

#: One batch of all structures, or batches that can be iterated repeatedly, such as a list or a loader.
TrainingSet: TypeAlias = Data | Iterable[Data]


class LeastSquares:
    """Least-squares fit ``min |x a - y|`` of rows that are added in parts, in float64.

    Only the triangle R of ``[x y] = Q R`` is stored, and the rows of each part are merged into it by another QR
    decomposition. R has the singular values of all rows, so no precision is lost; accumulating the products ``xᵀx``
    would lose half of the digits.

    Args:
        columns: number K of columns of x.

    Attributes:
        count: number of rows added so far.
        mean: mean of y over these rows.
        rank: rank of x after ``solve``; if it equals the count, the fit is exact and its residual tells nothing.
    """

    def __init__(self, columns: int) -> None:
        self._triangle = torch.zeros(0, columns + 1, dtype=torch.float64)
        self.count, self.mean, self.rank = 0, 0.0, 0

    def add(self, rows: Tensor, values: Tensor) -> None:
        """Add rows.

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
        """Return the minimum-norm solution a [K] and the root mean square of the residual.

        Args:
            constant: index of a column of ones; the mean of y is then subtracted first.
        """
        rows, values = self._triangle[:, :-1], self._triangle[:, -1]
        if constant is not None:
            values = values - self.mean * rows[:, constant]
        used = (rows != 0).any(0)
        solution = rows.new_zeros(rows.shape[1])
        if used.any():
            small = torch.finfo(rows.dtype).eps * max(self.count, int(used.sum()))
            solved = torch.linalg.lstsq(rows[:, used], values.unsqueeze(1), rcond=small, driver="gelsd")
            solution[used], self.rank = solved.solution.squeeze(1), int(solved.rank)
        return solution, math.sqrt(float((values - rows @ solution).square().sum()) / max(self.count, 1))


class Mean:
    """Running mean of all numbers of the added tensors, in float64; ``value`` is 0 as long as there are none."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, values: Tensor) -> None:
        """Add the numbers of a tensor."""
        self._total += float(values.detach().double().sum())
        self._count += values.numel()

    @property
    def value(self) -> float:
        """Mean of the numbers added so far."""
        return self._total / max(self._count, 1)


class RootMeanSquare(Mean):
    """Running root mean square."""

    def add(self, values: Tensor) -> None:
        """Add the numbers of a tensor."""
        super().add(values.detach().double().square())

    @property
    def value(self) -> float:
        """Root mean square of the numbers added so far."""
        return math.sqrt(super().value)


@dataclass(frozen=True)
class References:
    """Element references, shift and scale of a target, in float64.

    Attributes:
        references: [119] one number for each element, 0 for elements that the training set does not contain.
        shift: constant added to every graph.
        spread: standard deviation of the residual.
        mean_atoms: mean number of atoms of a graph.
    """

    references: Tensor
    shift: Tensor
    spread: float
    mean_atoms: float


def in_parts(data: TrainingSet) -> Iterable[Data]:
    """Return the batches of a training set.

    Raises:
        InputError: the training set can be iterated only once.
    """
    if isinstance(data, Data):
        return [data]
    if iter(data) is data:
        raise InputError("The training set can be iterated only once: pass a batch, a list of batches or a loader.")
    return data


def known_elements(parts: Iterable[Data]) -> list[int]:
    """Return the atomic numbers that occur, sorted; empty for point clouds without elements."""
    numbers: set[int] = set()
    for part in parts:
        if isinstance(getattr(part, "z", None), Tensor):
            numbers.update(part.z.unique().tolist())
    return sorted(numbers)


def composition(numbers: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
    """Return the number of atoms of each element in each graph.

    Shapes:
        numbers, batch: [N] int64. Returns [G, 119] float64.
    """
    counts = torch.bincount(batch * NUM_ELEMENTS + numbers, minlength=num_graphs * NUM_ELEMENTS)
    return counts.view(num_graphs, NUM_ELEMENTS).double()


def fit_references(data: TrainingSet, name: str, per_element: bool) -> References:
    """Fit element references (or the mean) of a graph-level target by least squares, and the spread around them.

    Args:
        data: the training set, as one Batch or several, with the target ``name`` [G].
        name: name of the target.
        per_element: fit one number for each element instead of one mean for all graphs.

    Raises:
        TensorError: the target is missing or not finite.
    """
    fit = LeastSquares(NUM_ELEMENTS + 1)  # the last column is a constant, for targets without elements
    atoms, largest, elements = 0, 0.0, False
    for part in [data] if isinstance(data, Data) else data:
        target = _finite_target(part, name, fit.count)
        largest = max(largest, float(target.abs().max()))
        counts = target.new_zeros(len(target), NUM_ELEMENTS + 1)
        numbers = getattr(part, "z", None)
        elements = per_element and isinstance(numbers, Tensor)
        if per_element and isinstance(numbers, Tensor):
            batch = part.batch if isinstance(getattr(part, "batch", None), Tensor) else torch.zeros_like(numbers)
            counts[:, :-1] = composition(numbers, batch, len(target)).cpu()
        else:
            counts[:, -1] = 1.0
        fit.add(counts, target)
        atoms += int(part.num_nodes or 0)
    if fit.count == 0:
        raise TensorError(f"The training set has no structure to fit references of '{name}' to.")
    solution, spread = fit.solve()
    references = solution[:-1] if elements else torch.zeros(NUM_ELEMENTS, dtype=torch.float64)
    shift = torch.tensor(0.0 if elements else fit.mean, dtype=torch.float64)
    scale = spread if spread > 1e-12 * max(largest, 1e-300) else 1.0
    return References(references, shift, scale, atoms / fit.count)


def _finite_target(part: Data, name: str, before: int) -> Tensor:
    """Return a graph-level target [G] in float64, after checking it; ``before`` graphs came in earlier batches."""
    target = getattr(part, name, None)
    if not isinstance(target, Tensor) or target.numel() == 0:
        raise TensorError(f"The training set has no target '{name}' to fit references to.")
    target = target.detach().reshape(-1).double().cpu()
    if not target.isfinite().all():
        index = int((~target.isfinite()).nonzero()[0])
        has_id = "structure_id" in part
        graph = f"structure {int(part.structure_id[index])}" if has_id else f"training graph {before + index}"
        raise TensorError(f"The target '{name}' of {graph} is not finite.")
    return target
