"""Metrics: errors of predictions, their units, and exact means over batches and processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

__all__ = ["METRICS", "MOVED", "MetricSums", "errors", "free", "headline", "metric_unit"]

#: Metrics of every target; MSE is the headline metric of positions, as published for the N-body task.
METRICS = ("MAE", "RMSE", "MSE")


def headline(target: str) -> str:
    """Return the metric by which ``target`` is usually compared."""
    return "MSE" if target == "positions" else "MAE"


def metric_unit(metric: str, unit: str) -> str:
    """Return the unit of a metric of a quantity in ``unit``; empty if it has none."""
    if unit == "1":
        return ""
    if metric != "MSE":
        return unit
    return f"{unit}^2" if unit.isalpha() else f"({unit})^2"


def errors(prediction: NDArray[np.float64], target: NDArray[np.float64]) -> Mapping[str, float]:
    """Return MAE, RMSE and MSE, each the mean over all components of all graphs or atoms.

    Shapes:
        prediction, target: [G], [N], [G, D] or [N, D], the same for both, in the same unit.
    """
    difference = prediction - target
    square = float(np.mean(difference**2)) if difference.size else float("nan")
    mean = float(np.mean(np.abs(difference))) if difference.size else float("nan")
    return {"MAE": mean, "RMSE": square**0.5, "MSE": square}


#: Fields that are compared on free atoms only: training and published errors ignore atoms fixed in a relaxation.
MOVED = ("forces", "relaxed_positions")


def free(name: str, values: Tensor, data: Data) -> Tensor:
    """Return the rows of the free atoms if the field ``name`` is compared on these only; else ``values``.

    Shapes:
        values: [N, ..]. ``data.fixed``: [N] bool; without it, all atoms are free.
    """
    fixed = getattr(data, "fixed", None)
    if name not in MOVED or not isinstance(fixed, Tensor) or len(fixed) != len(values):
        return values
    return values[~fixed.bool()]


class MetricSums:
    """Sums and counts by name, in float64.

    Their means do not depend on how structures are divided into batches, or among processes.

    Args:
        names: names of the metrics.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._pairs: dict[str, Tensor] = {}

    def add(self, name: str, total: Tensor, count: Tensor | float) -> None:
        """Add ``total``, the sum of ``count`` values."""
        pair = torch.stack([total.detach().double(), torch.as_tensor(count, device=total.device).double()])
        self._pairs[name] = self._pairs[name].to(pair.device) + pair if name in self._pairs else pair

    def reduced(self, add_up: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
        """Return sums and counts over all processes, [names, 2], on the CPU.

        Args:
            add_up: function that sums a tensor over the processes; each of them calls this method.
            device: device of the tensors that are summed.
        """
        zero = torch.zeros(2, dtype=torch.float64, device=device)
        pairs = torch.stack([self._pairs.get(name, zero).to(device) for name in self.names])
        return add_up(pairs).cpu()

    def reset(self, pairs: Tensor | None = None) -> None:
        """Start from zero, or from the result of ``reduced``."""
        self._pairs = {} if pairs is None else dict(zip(self.names, pairs.double()))

    def means(self, pairs: Tensor) -> Mapping[str, float]:
        """Return the means in a result of ``reduced``, for the names with values."""
        return {name: float(total / count) for name, (total, count) in zip(self.names, pairs) if count > 0}
