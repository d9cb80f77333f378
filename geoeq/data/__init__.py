"""Data sets: cards, files, caches, splits and loaders. No model is known here."""

from __future__ import annotations

from pathlib import Path

from geoeq.data.card import Card, Source, Split, Target, load_card, names, read_card
from geoeq.data.dataset import Dataset
from geoeq.data.prepare import prepare
from geoeq.data.records import Reader, Records

__all__ = [
    "Card",
    "Dataset",
    "Reader",
    "Records",
    "Source",
    "Split",
    "Target",
    "load",
    "load_card",
    "names",
    "read_card",
]


def load(name_or_path: str | Path, *, sample: bool = False, root: str | Path | None = None) -> Dataset:
    """The data set of that name, prepared if it is not yet.

    Args:
        name_or_path: one of ``names()``.
        sample: only the records that come with geoeq.
        root: the folder of all caches; ``$GEOEQ_CACHE`` or ``~/.cache/geoeq`` if None.

    Raises:
        DataError: there is no such data set, or its files cannot be had.
    """
    card = load_card(str(name_or_path))
    return Dataset.open(card, prepare(card, sample, root), sample)
