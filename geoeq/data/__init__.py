"""Data sets: cards, files, caches, splits and loaders. No model is known here."""

from __future__ import annotations

from pathlib import Path

from geoeq.data.card import (
    Card,
    Published,
    Sample,
    Source,
    Split,
    Target,
    Variant,
    card_path,
    is_name,
    load_card,
    names,
    read_card,
)
from geoeq.data.dataset import Dataset
from geoeq.data.edges import EdgeTable
from geoeq.data.load_file import load_file
from geoeq.data.prepare.cache import prepare
from geoeq.data.prepare.chunks import Frame, in_chunks, join, stack
from geoeq.data.records import Reader, Records, Shard, ShardedReader
from geoeq.data.sampler import Share
from geoeq.resources import cache_root

__all__ = [
    "Card",
    "Dataset",
    "EdgeTable",
    "Frame",
    "Published",
    "Reader",
    "Records",
    "Sample",
    "Shard",
    "ShardedReader",
    "Share",
    "Source",
    "Split",
    "Target",
    "Variant",
    "cache_root",
    "card_path",
    "in_chunks",
    "is_name",
    "join",
    "load",
    "load_card",
    "load_file",
    "names",
    "prepare",
    "read_card",
    "stack",
]


def load(name_or_path: str | Path, *, sample: bool = False, root: str | Path | None = None) -> Dataset:
    """A data set, prepared if it is not yet, or the structures of a file, in memory.

    Args:
        name_or_path: one of ``names()``, perhaps with a variant (``md22/dha``), the path of a card of your own
            (``.yaml``) or of a folder that holds one as ``card.yaml``, or of a file of structures: extended xyz, npz,
            HDF5, a database of ASE, JSON of pymatgen, sdf, whatever ASE reads, or a folder of DeePMD-kit.
        sample: only the records that come with geoeq.
        root: the folder of all caches; ``$GEOEQ_CACHE`` or ``~/.cache/geoeq`` if None.

    Raises:
        DataError: there is no such data set or file, or its files cannot be had or read.
        InputError: a structure cannot be what was meant.
    """
    path = card_path(name_or_path)
    if path is None and not is_name(str(name_or_path)):
        return load_file(Path(name_or_path))
    card = load_card(str(name_or_path)) if path is None else read_card(path)
    return Dataset.open(card, prepare(card, sample, root), sample)
