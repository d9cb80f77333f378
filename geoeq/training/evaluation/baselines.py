"""Baselines: predictions without a network, fitted to the training set, which a model has to beat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data import Dataset
from geoeq.data.ragged import Ranges
from geoeq.fields import NUM_ELEMENTS, field
from geoeq.models.training_set import LeastSquares, Mean, RootMeanSquare, composition
from geoeq.training.evaluation.metrics import MOVED

__all__ = ["Baseline", "fit_baselines", "parts_of"]

Indices = NDArray[np.int64]
Values = NDArray[np.float64]
Predictor = Callable[[Indices], Values]

#: Number of atoms of the training set in memory at once.
_ATOMS = 2**18


@dataclass(frozen=True)
class Baseline:
    """Baseline for one target.

    Attributes:
        name: short name for tables.
        predictions: part of the split -> predictions in the internal unit, computed on access.
        scales: name of a loss -> error on the training set in its norm, in the internal unit: root mean square of the
            components (mse, huber), mean of their absolute values (mae), or mean length of the rows (length).
    """

    name: str
    predictions: Mapping[str, Values]
    scales: Mapping[str, float]


@dataclass(frozen=True)
class _Predictions(Mapping[str, Values]):
    """Predictions for the parts of a split."""

    predictor: Predictor
    split: Mapping[str, Indices]

    def __getitem__(self, part: str) -> Values:
        return self.predictor(self.split[part])

    def __iter__(self) -> Iterator[str]:
        return iter(self.split)

    def __len__(self) -> int:
        return len(self.split)


def parts_of(dataset: Dataset, indices: Indices) -> list[Indices]:
    """Return the indices of structures in stored order, in parts that fit into memory together with their targets."""
    indices = np.sort(indices)
    ends = np.cumsum(np.diff(dataset.ptr)[indices])
    return np.split(indices, np.flatnonzero(np.diff(ends // _ATOMS)) + 1)


def fit_baselines(dataset: Dataset, split: Mapping[str, Indices], target: str) -> list[Baseline]:
    """Fit the baselines of a target; the one with the smallest root mean square error is the last.

    For a scalar per graph: the mean, and a linear model on composition (one coefficient per element and a constant, by
    least squares; omitted if it fits the few structures exactly, which means nothing). For positions: no motion, and
    constant velocity, for one unit of time and for a fitted time. For other fields of atoms: the mean (of a scalar), or
    zero (of a vector, whose mean would depend on the frame).

    Args:
        dataset: data set, of which a part at a time is in memory.
        split: "train", "valid", "test" -> indices of structures.
        target: name of the field.
    """
    parts = parts_of(dataset, split["train"])
    predictors: dict[str, Predictor]
    if field(target).translates:
        predictors = _motions(dataset, parts, target)
    elif field(target).irreps != "0e" and "x0e" not in field(target).irreps:
        predictors = {"zero": lambda indices: np.zeros_like(_true(dataset, indices, target))}
    else:
        predictors = {"mean": _mean(dataset, parts, target)}
        if field(target).level == "graph" and dataset.numbers is not None:
            predictors |= _on_composition(dataset, parts, target)
    errors = {name: _Errors() for name in predictors}
    for indices in parts:
        truth = _true(dataset, indices, target)
        for name, predict in predictors.items():
            errors[name].add(torch.from_numpy(predict(indices) - truth))
    baselines = [
        Baseline(name, _Predictions(predict, split), errors[name].scales) for name, predict in predictors.items()
    ]
    return sorted(baselines, key=lambda baseline: -baseline.scales["mse"])


class _Errors:
    """Scales of a baseline, from errors [M, ...] that are added in parts."""

    def __init__(self) -> None:
        self._squares, self._absolutes, self._lengths = RootMeanSquare(), Mean(), Mean()

    def add(self, errors: torch.Tensor) -> None:
        self._squares.add(errors)
        self._absolutes.add(errors.abs())
        self._lengths.add(errors.reshape(len(errors), -1).norm(dim=-1))

    @property
    def scales(self) -> dict[str, float]:
        square = self._squares.value
        return {"mse": square, "huber": square, "mae": self._absolutes.value, "length": self._lengths.value}


def _true(dataset: Dataset, indices: Indices, target: str) -> Values:
    values = dataset.targets[target]
    if field(target).level != "node" or len(indices) == 0:
        return np.asarray(values[indices], dtype=np.float64)
    rows = np.asarray(Ranges.of(indices, dataset.ptr).take(values), dtype=np.float64)
    return _free(dataset, indices, target, rows)


def _free(dataset: Dataset, indices: Indices, target: str, rows: Values) -> Values:
    free = dataset.free_atoms(indices) if target in MOVED else None
    return rows if free is None else rows[free]


def _mean(dataset: Dataset, parts: Sequence[Indices], target: str) -> Predictor:
    total, count = np.zeros(dataset.targets[target].shape[1:]), 0
    for indices in parts:
        rows = _true(dataset, indices, target)
        total, count = total + rows.sum(0), count + len(rows)
    mean = total / count
    return lambda indices: np.broadcast_to(mean, _true(dataset, indices, target).shape)


def _on_composition(dataset: Dataset, parts: Sequence[Indices], target: str) -> dict[str, Predictor]:
    def counts(indices: Indices) -> torch.Tensor:
        """Return the number of atoms of each element, and a constant, [G, 120]."""
        ranges = Ranges.of(indices, dataset.ptr)
        numbers = torch.from_numpy(ranges.take(np.asarray(dataset.numbers)).astype(np.int64))
        graph = torch.from_numpy(np.repeat(np.arange(len(indices)), np.diff(ranges.pointers)))
        elements = composition(numbers, graph, len(indices))
        return torch.cat([elements, elements.new_ones(len(indices), 1)], dim=1)

    fit = LeastSquares(NUM_ELEMENTS + 1)
    for indices in parts:
        fit.add(counts(indices), torch.from_numpy(_true(dataset, indices, target)))
    solution, _ = fit.solve(constant=NUM_ELEMENTS)
    if fit.rank == fit.count:
        return {}
    return {"linear model on composition": lambda indices: (counts(indices) @ solution + fit.mean).numpy()}


def _motions(dataset: Dataset, parts: Sequence[Indices], target: str) -> dict[str, Predictor]:
    def inputs(indices: Indices, name: str = "pos") -> Values:
        if len(indices) == 0:
            return np.zeros((0, 3))
        return _free(dataset, indices, target, dataset.batch(indices, targets=[])[name].double().numpy())

    def moved(time: float) -> Predictor:
        return lambda indices: inputs(indices) + time * inputs(indices, "vel")

    predictors: dict[str, Predictor] = {"no motion": inputs}
    if "vel" in dataset.batch(parts[0][:1], targets=[]):
        along, square = 0.0, 0.0
        for indices in parts:
            velocity = inputs(indices, "vel")
            along += float((velocity * (_true(dataset, indices, target) - inputs(indices))).sum())
            square += float((velocity**2).sum())
        best = along / square
        predictors["velocity times 1"] = moved(1.0)
        predictors[f"velocity times {best:.3f}, fitted"] = moved(best)
    return predictors
