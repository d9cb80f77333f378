"""Who is in training and who in the test: whole molecules, so that no conformer of one is in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from geoeq.data.splits import PARTS, scale_sizes
from geoeq.factory.settings import seed_of

__all__ = ["Division", "divide"]

#: Of molecules, in training, validation and test.
_SHARES = {"train": 8, "valid": 1, "test": 1}


@dataclass(frozen=True)
class Division:
    """How the structures are divided.

    Attributes:
        name: of the split: by "molecule", "start" or "structure".
        method: of the split, as in ``geoeq.data.splits``.
        seed: of the method.
        sizes: structures in train, valid and test.
        order: the starts as the data set holds them.
        parts: of each start, as they were given; empty where its structures are in several.
        source: in words.
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

    With fewer than three groups the starts are divided, and with fewer than three of those the structures.

    Args:
        groups: of each start.
        counts: structures of each start.
        seed: of the set.
    """
    names = list(dict.fromkeys(groups))
    if len(names) >= 3:
        text = f"by molecule: whole molecules or systems ({len(names)}) in train, valid and test, 8 : 1 : 1, at random"
        return _of_units("molecule", groups, counts, seed, text)
    few = f"train and test share molecules, as there are {len(names)}: errors say nothing of others"
    if len(groups) >= 3:
        text = f"by start: whole conformers, frames or sites ({len(groups)}), 8 : 1 : 1, at random; {few}"
        return _of_units("start", [str(place) for place in range(len(groups))], counts, seed, text)
    sizes = scale_sizes(_SHARES, sum(counts))
    text = f"by structure, 8 : 1 : 1, at random; {few}, and neighbours in time may be in both"
    places, nowhere = range(len(groups)), [""] * len(groups)
    return Division("structure", "permutation", seed_of(seed, "split"), sizes, places, nowhere, text)


def _of_units(name: str, units: Sequence[str], counts: Sequence[int], seed: int, source: str) -> Division:
    names = list(dict.fromkeys(units))
    shares = scale_sizes(_SHARES, len(names))
    order = np.random.default_rng(seed_of(seed, "split")).permutation(len(names))
    ends = np.cumsum([shares[part] for part in PARTS])
    part_of = {names[place]: PARTS[int(np.searchsorted(ends, rank, side="right"))] for rank, place in enumerate(order)}
    parts = [part_of[unit] for unit in units]
    places = sorted(range(len(units)), key=lambda place: PARTS.index(parts[place]))
    sizes = {part: sum(count for count, of in zip(counts, parts) if of == part) for part in PARTS}
    return Division(name, "consecutive", None, sizes, places, parts, source)
