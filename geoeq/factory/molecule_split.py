"""Split structures by molecule, so that no two conformers of one molecule are in both training and test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geoeq.data.splits import PARTS, scale_sizes
from geoeq.factory.settings import seed_of

__all__ = ["Division", "divide"]

#: Ratio of the sizes of training, validation and test.
_RATIO = {"train": 8, "valid": 1, "test": 1}


@dataclass(frozen=True)
class Division:
    """A split of the structures.

    Attributes:
        name: name of the split: by "molecule", "start" or "structure".
        method: method of the split, as in ``geoeq.data.splits``.
        seed: random seed of the method.
        sizes: numbers of structures in train, valid and test.
        order: indices of the starts in the order of the data set.
        parts: part of each start, in the order of the input; empty if its structures are in several parts.
        source: description of the split.
    """

    name: str
    method: str
    seed: int | None
    sizes: Mapping[str, int]
    order: Sequence[int]
    parts: Sequence[str]
    source: str


def divide(groups: Sequence[str], counts: Sequence[int], seed: int) -> Division:
    """Divide the starts 8 : 1 : 1 by their groups, at random.

    With fewer than three groups the starts are divided, and with fewer than three starts the structures.

    Args:
        groups: group of each start.
        counts: number of structures of each start.
        seed: random seed of the data set.
    """
    names = list(dict.fromkeys(groups))
    if len(names) >= 3:
        text = f"by molecule: whole molecules or systems ({len(names)}) in train, valid and test, 8 : 1 : 1, at random"
        return _divide_units("molecule", groups, counts, seed, text)
    few = f"train and test share molecules, as there are only {len(names)}: errors say nothing about other molecules"
    if len(groups) >= 3:
        text = f"by start: whole conformers, frames or sites ({len(groups)}), 8 : 1 : 1, at random; {few}"
        return _divide_units("start", [str(index) for index in range(len(groups))], counts, seed, text)
    sizes = scale_sizes(_RATIO, sum(counts))
    text = f"by structure, 8 : 1 : 1, at random; {few}, and train and test may hold neighbouring frames"
    unknown = [""] * len(groups)
    return Division("structure", "permutation", seed_of(seed, "split"), sizes, range(len(groups)), unknown, text)


def _divide_units(name: str, units: Sequence[str], counts: Sequence[int], seed: int, source: str) -> Division:
    names = list(dict.fromkeys(units))
    sizes = scale_sizes(_RATIO, len(names))
    order = np.random.default_rng(seed_of(seed, "split")).permutation(len(names))
    ends = np.cumsum([sizes[part] for part in PARTS])
    part_of = {names[index]: PARTS[int(np.searchsorted(ends, rank, side="right"))] for rank, index in enumerate(order)}
    parts = [part_of[unit] for unit in units]
    starts = sorted(range(len(units)), key=lambda index: PARTS.index(parts[index]))
    structures = {part: sum(count for count, of in zip(counts, parts) if of == part) for part in PARTS}
    return Division(name, "consecutive", None, structures, starts, parts, source)
