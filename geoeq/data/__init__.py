"""Data sets: cards, files, caches, splits and loaders, independent of any model."""

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
from geoeq.data.preparation.cache import prepare
from geoeq.data.preparation.chunks import Frame, chunk_frames, join, stack
from geoeq.data.records import Reader, Records, Shard, ShardedReader
from geoeq.data.sampler import Share
from geoeq.data.user_files import load_file
from geoeq.resources import cache_root
from geoeq.trust import Trust

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
    "chunk_frames",
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

#: The earlier name of ``chunk_frames``, kept for one release.
in_chunks = chunk_frames


def load(
    name_or_path: str | Path, *, sample: bool = False, root: str | Path | None = None, trust: Trust = False
) -> Dataset:
    """Load a data set, preparing its cache if necessary, or the structures of a file, in memory.

    Args:
        name_or_path: one of ``names()``, optionally with a variant (``md22/dha``); the path of your own card
            (``.yaml``) or of a folder with a ``card.yaml``; or the path of a file of structures: extended xyz, npz,
            HDF5, a database of ASE, JSON of pymatgen, sdf, any other format that ASE reads, or a folder of DeePMD-kit.
        sample: whether to load only the records that are shipped with geoeq.
        root: folder of all caches; ``$GEOEQ_CACHE`` or ``~/.cache/geoeq`` if None.
        trust: True, or names of modules outside geoeq that a card may name as its reader. Modules that are already
            imported are allowed.

    Raises:
        DataError: the data set or file does not exist, or its files cannot be fetched or read.
        InputError: a structure is invalid.
    """
    path = card_path(name_or_path)
    if path is None and not is_name(str(name_or_path)):
        return load_file(Path(name_or_path))
    card = load_card(str(name_or_path)) if path is None else read_card(path, trust=trust)
    return Dataset.open(card, prepare(card, sample, root), sample)
