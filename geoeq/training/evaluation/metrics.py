"""Errors of predictions: which are told of a target, and in which unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

__all__ = ["METRICS", "MOVED", "MetricSums", "errors", "free", "headline", "metric_unit"]

#: What a table tells of every target; for positions the mean square comes first, as the N-body papers publish it.
METRICS = ("MAE", "RMSE", "MSE")


def headline(target: str) -> str:
    """The one metric by which ``target`` is usually compared."""
    return "MSE" if target == "positions" else "MAE"


def metric_unit(metric: str, unit: str) -> str:
    """The unit of a metric of a quantity in ``unit``; empty if it has none."""
    if unit == "1":
        return ""
    if metric != "MSE":
        return unit
    return f"{unit}^2" if unit.isalpha() else f"({unit})^2"


def errors(prediction: NDArray[np.float64], target: NDArray[np.float64]) -> Mapping[str, float]:
    """MAE, RMSE and MSE, each the mean over all components of all graphs or atoms.

    Shapes:
        prediction, target: [G], [N], [G, D] or [N, D], the same, in one unit.
    """
    difference = prediction - target
    square = float(np.mean(difference**2)) if difference.size else float("nan")
    mean = float(np.mean(np.abs(difference))) if difference.size else float("nan")
    return {"MAE": mean, "RMSE": square**0.5, "MSE": square}


#: Fields that are of free atoms alone.
MOVED = ("forces", "relaxed_positions")


def free(name: str, values: Tensor, data: Data) -> Tensor:
    """The rows of the atoms that are free, if the field ``name`` is of those alone; else ``values``.

    Shapes:
        values: [N, ..]. ``data.fixed``: [N] bool; without it all atoms are free.
    """
    fixed = getattr(data, "fixed", None)
    if name not in MOVED or not isinstance(fixed, Tensor) or len(fixed) != len(values):
        return values
    return values[~fixed.bool()]


class MetricSums:
    """Sums and counts by name, in float64.

    A mean of them does not depend on how structures were divided into batches, or among processes.

    Args:
        names: of what is counted.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._pairs: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor, count: Tensor | float) -> None:
        """Count ``total``, the sum of ``count`` values."""
        pair = torch.stack([total.detach().double(), torch.as_tensor(count, device=total.device).double()])
        self._pairs[name] = self._pairs[name].to(pair.device) + pair if name in self._pairs else pair

    def reduced(self, add_up: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
        """Sums and counts of all processes, [names, 2], on the CPU.

        Args:
            add_up: the sum of a tensor over the processes, each of which calls this.
            device: where processes can add up.
        """
        nothing = torch.zeros(2, dtype=torch.float64, device=device)
        own = torch.stack([self._pairs.get(name, nothing).to(device) for name in self.names])
        return add_up(own).cpu()

    def reset(self, pairs: Tensor | None = None) -> None:
        """Begin anew, or with what ``reduced`` gave."""
        self._pairs = {} if pairs is None else dict(zip(self.names, pairs.double()))

    def means(self, pairs: Tensor) -> Mapping[str, float]:
        """The means of what was counted at all, of what ``reduced`` gave."""
        return {name: float(total / count) for name, (total, count) in zip(self.names, pairs) if count > 0}
