"""Guesses that need no network, fitted to the training set: what a model has to beat."""

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

Places = NDArray[np.int64]
Values = NDArray[np.float64]
Guess = Callable[[Places], Values]

#: Atoms of the training set that are in memory at once.
_ATOMS = 2**18


@dataclass(frozen=True)
class Baseline:
    """A guess for one target.

    Attributes:
        name: in a few words, for tables.
        predictions: part of the split -> guesses, in the unit inside; they are made when they are asked for.
        scales: name of a loss -> typical error on the training set in its norm, in the unit inside: the root mean
            square of components (mse, huber), their mean (mae), or the mean length of rows (length).
    """

    name: str
    predictions: Mapping[str, Values]
    scales: Mapping[str, float]


@dataclass(frozen=True)
class _Predictions(Mapping[str, Values]):
    """The guesses for the parts of a split."""

    guess: Guess
    split: Mapping[str, Places]

    def __getitem__(self, part: str) -> Values:
        return self.guess(self.split[part])

    def __iter__(self) -> Iterator[str]:
        return iter(self.split)

    def __len__(self) -> int:
        return len(self.split)


def parts_of(dataset: Dataset, places: Places) -> list[Places]:
    """Structures in the order in which they are stored, in parts that fit into memory together with their targets."""
    places = np.sort(places)
    ends = np.cumsum(np.diff(dataset.ptr)[places])
    return np.split(places, np.flatnonzero(np.diff(ends // _ATOMS)) + 1)


def fit_baselines(dataset: Dataset, split: Mapping[str, Places], target: str) -> list[Baseline]:
    """The baselines of a target, that with the smallest root mean square error last.

    For a scalar of a graph: the mean, and a linear model on composition (one number an element, and a constant, by
    least squares; left out where so few structures have it fit all of them exactly, which tells nothing). For
    positions: no motion, and constant velocity, for one unit of time and for a time that is fitted. For what else
    belongs to atoms: the mean (of a scalar), or zero (of a vector, whose mean would turn with the frame).

    Args:
        dataset: the records, of which some at a time are in memory.
        split: "train", "valid", "test" -> places.
        target: the name of the field.
    """
    parts = parts_of(dataset, split["train"])
    guesses: dict[str, Guess]
    if field(target).translates:
        guesses = _motions(dataset, parts, target)
    elif field(target).irreps != "0e" and "x0e" not in field(target).irreps:
        guesses = {"zero": lambda places: np.zeros_like(_true(dataset, places, target))}
    else:
        guesses = {"mean": _mean(dataset, parts, target)}
        if field(target).level == "graph" and dataset.numbers is not None:
            guesses |= _on_composition(dataset, parts, target)
    errors = {name: _Errors() for name in guesses}
    for places in parts:
        truth = _true(dataset, places, target)
        for name, guess in guesses.items():
            errors[name].add(torch.from_numpy(guess(places) - truth))
    baselines = [Baseline(name, _Predictions(guess, split), errors[name].scales) for name, guess in guesses.items()]
    return sorted(baselines, key=lambda baseline: -baseline.scales["mse"])


class _Errors:
    """The scales of a baseline, from errors [M, ...] that are added in parts."""

    def __init__(self) -> None:
        self._squares, self._sizes, self._lengths = RootMeanSquare(), Mean(), Mean()

    def add(self, errors: torch.Tensor) -> None:
        self._squares.add(errors)
        self._sizes.add(errors.abs())
        self._lengths.add(errors.reshape(len(errors), -1).norm(dim=-1))

    @property
    def scales(self) -> dict[str, float]:
        square = self._squares.value
        return {"mse": square, "huber": square, "mae": self._sizes.value, "length": self._lengths.value}


def _true(dataset: Dataset, places: Places, target: str) -> Values:
    values = dataset.targets[target]
    if field(target).level != "node" or len(places) == 0:
        return np.asarray(values[places], dtype=np.float64)
    rows = np.asarray(Ranges.of(places, dataset.ptr).take(values), dtype=np.float64)
    return _free(dataset, places, target, rows)


def _free(dataset: Dataset, places: Places, target: str, rows: Values) -> Values:
    free = dataset.free_atoms(places) if target in MOVED else None
    return rows if free is None else rows[free]


def _mean(dataset: Dataset, parts: Sequence[Places], target: str) -> Guess:
    total, count = np.zeros(dataset.targets[target].shape[1:]), 0
    for places in parts:
        rows = _true(dataset, places, target)
        total, count = total + rows.sum(0), count + len(rows)
    mean = total / count
    return lambda places: np.broadcast_to(mean, _true(dataset, places, target).shape)


def _on_composition(dataset: Dataset, parts: Sequence[Places], target: str) -> dict[str, Guess]:
    def counts(places: Places) -> torch.Tensor:
        """How many atoms of each element, and a constant, [G, 120]."""
        ranges = Ranges.of(places, dataset.ptr)
        numbers = torch.from_numpy(ranges.take(np.asarray(dataset.numbers)).astype(np.int64))
        graph = torch.from_numpy(np.repeat(np.arange(len(places)), np.diff(ranges.pointers)))
        found = composition(numbers, graph, len(places))
        return torch.cat([found, found.new_ones(len(places), 1)], dim=1)

    fit = LeastSquares(NUM_ELEMENTS + 1)
    for places in parts:
        fit.add(counts(places), torch.from_numpy(_true(dataset, places, target)))
    solution, _ = fit.solve(constant=NUM_ELEMENTS)
    if fit.rank == fit.count:
        return {}
    return {"linear model on composition": lambda places: (counts(places) @ solution + fit.mean).numpy()}


def _motions(dataset: Dataset, parts: Sequence[Places], target: str) -> dict[str, Guess]:
    def inputs(places: Places, name: str = "pos") -> Values:
        if len(places) == 0:
            return np.zeros((0, 3))
        return _free(dataset, places, target, dataset.batch(places, targets=[])[name].double().numpy())

    def moved(time: float) -> Guess:
        return lambda places: inputs(places) + time * inputs(places, "vel")

    guesses: dict[str, Guess] = {"no motion": inputs}
    if "vel" in dataset.batch(parts[0][:1], targets=[]):
        along, square = 0.0, 0.0
        for places in parts:
            velocity = inputs(places, "vel")
            along += float((velocity * (_true(dataset, places, target) - inputs(places))).sum())
            square += float((velocity**2).sum())
        best = along / square
        guesses["velocity times 1"] = moved(1.0)
        guesses[f"velocity times {best:.3f}, fitted"] = moved(best)
    return guesses
