"""Guesses that need no network, fitted to the training set: what a model has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch_geometric.data import Data

from geoeq.data import Dataset
from geoeq.data.ragged import Ranges
from geoeq.fields import field
from geoeq.training.free_atoms import MOVED

__all__ = ["Baseline", "fit_baselines"]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """A guess for one target.

    Attributes:
        name: in a few words, for tables.
        predictions: part of the split -> guesses, in the unit inside.
        scales: name of a loss -> typical error on the training set in its norm, in the unit inside: the root mean
            square of components (mse), their mean (mae, huber), or the mean length of rows (length).
    """

    name: str
    predictions: Mapping[str, Values]
    scales: Mapping[str, float]


def fit_baselines(dataset: Dataset, split: Mapping[str, NDArray[np.int64]], target: str) -> list[Baseline]:
    """The baselines of a target, that with the smallest root mean square error last.

    For a scalar of a graph: the mean, and a linear model on composition (one number an element, and a constant, by
    least squares; left out where so few structures have it fit all of them exactly, which tells nothing). For
    positions: no motion, and constant velocity, for one unit of time and for a time that is fitted. For what else
    belongs to atoms: the mean (of a scalar), or zero (of a vector, whose mean would turn with the frame).

    Args:
        dataset: the records.
        split: "train", "valid", "test" -> places.
        target: the name of the field.
    """
    if field(target).translates:
        guesses = _motions(dataset, split, target)
    elif field(target).irreps != "0e" and "x0e" not in field(target).irreps:
        guesses = {"zero": {part: np.zeros_like(_true(dataset, rows, target)) for part, rows in split.items()}}
    else:
        mean = _true(dataset, split["train"], target).mean(0)
        guesses = {"mean": {p: np.broadcast_to(mean, _true(dataset, rows, target).shape) for p, rows in split.items()}}
        if field(target).level == "graph" and dataset.numbers is not None:
            guesses |= _on_composition(dataset, split, target)
    truth = _true(dataset, split["train"], target)
    baselines = [Baseline(name, found, _scales(found["train"] - truth)) for name, found in guesses.items()]
    return sorted(baselines, key=lambda baseline: -baseline.scales["mse"])


def _scales(errors: Values) -> dict[str, float]:
    components = float(np.abs(errors).mean())
    lengths = np.linalg.norm(errors.reshape(len(errors), -1), axis=-1)
    return {
        "mse": float(np.sqrt(np.square(errors).mean())),
        "mae": components,
        "huber": components,
        "length": float(lengths.mean()),
    }


def _true(dataset: Dataset, places: NDArray[np.int64], target: str) -> Values:
    values = dataset.targets[target]
    if field(target).level != "node" or len(places) == 0:
        return np.asarray(values[places], dtype=np.float64)
    rows = np.asarray(Ranges.of(places, dataset.ptr).take(values), dtype=np.float64)
    return _free(dataset, places, target, rows)


def _free(dataset: Dataset, places: NDArray[np.int64], target: str, rows: Values) -> Values:
    free = dataset.free_atoms(places) if target in MOVED else None
    return rows if free is None else rows[free]


def _on_composition(
    dataset: Dataset, split: Mapping[str, NDArray[np.int64]], target: str
) -> dict[str, dict[str, Values]]:
    numbers = np.asarray(dataset.numbers)
    elements, column = np.unique(numbers, return_inverse=True)
    graph = np.repeat(np.arange(len(dataset)), np.diff(dataset.ptr))
    width = len(elements) + 1  # and a constant
    counts = np.bincount(graph * width + column, minlength=len(dataset) * width).reshape(-1, width).astype(np.float64)
    counts[:, -1] = 1.0
    train = split["train"]
    values = _true(dataset, train, target)
    shift = values.mean(0)  # total energies are large: least squares of the rest loses no digits
    solution, _, rank, _ = np.linalg.lstsq(counts[train], values - shift, rcond=None)
    if rank == len(train):
        return {}
    return {"linear model on composition": {part: counts[rows] @ solution + shift for part, rows in split.items()}}


def _motions(dataset: Dataset, split: Mapping[str, NDArray[np.int64]], target: str) -> dict[str, dict[str, Values]]:
    def arrays(places: NDArray[np.int64]) -> tuple[Values, Values | None]:
        if len(places) == 0:
            return np.zeros((0, 3)), None
        batch: Data = dataset.batch(places, targets=[])
        found = [values.double().numpy() for values in (batch.pos, getattr(batch, "vel", None)) if values is not None]
        start, *velocity = [_free(dataset, places, target, rows) for rows in found]
        return start, velocity[0] if velocity else None

    inputs = {part: arrays(places) for part, places in split.items()}
    guesses = {"no motion": {part: pos for part, (pos, _) in inputs.items()}}
    start, velocity = inputs["train"]
    if velocity is not None:
        moved = _true(dataset, split["train"], target) - start
        best = float((velocity * moved).sum() / (velocity**2).sum())
        guesses["velocity times 1"] = _moved(inputs, 1.0)
        guesses[f"velocity times {best:.3f}, fitted"] = _moved(inputs, best)
    return guesses


def _moved(inputs: Mapping[str, tuple[Values, Values | None]], time: float) -> dict[str, Values]:
    return {part: pos if velocity is None else pos + time * velocity for part, (pos, velocity) in inputs.items()}
