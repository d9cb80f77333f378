"""Errors of predictions: which are told of a target, and in which unit."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "errors", "headline", "metric_unit"]

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
