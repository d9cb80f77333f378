"""From published files to a cache of arrays in the units of geoeq."""

from __future__ import annotations

import fcntl
import hashlib
import json
from pathlib import Path
from typing import IO, Any

from geoeq.data.arrays import checked_arrays
from geoeq.data.card import Card
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.prepare.fetch import fetch_sources
from geoeq.data.prepare.reading import make_reader, reader_options
from geoeq.data.prepare.streaming import write_chunks, write_shards
from geoeq.data.records import Records, ShardedReader
from geoeq.data.store import INDEX, read_index, write_store
from geoeq.errors import DataError, InputError
from geoeq.files import file_sha256
from geoeq.resources import cache_root

__all__ = ["cache_folder", "prepare"]


def cache_folder(card: Card, sample: bool, root: str | Path | None = None) -> Path:
    """The folder of the cache of ``card``. Its name has a checksum of all that decides what is in it."""
    decides = {
        "reader": [card.reader, make_reader(card, sample).version, reader_options(card, sample)],
        "targets": {name: [target.column, target.unit] for name, target in card.targets.items()},
        "files": _sample_files(card) if sample else [[source.file, source.sha256] for source in card.sources],
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    return cache_root(root) / card.name / f"{'sample' if sample else 'full'}-{digest}"


def prepare(
    card: Card,
    sample: bool = False,
    root: str | Path | None = None,
    processes: int | None = None,
    dask: str | None = None,
) -> Path:
    """Make the cache of ``card`` unless it is there and its source is unchanged.

    What a reader yields in chunks is written as it comes, in bounded memory; shards are read by several processes,
    and those that were read before a kill are kept.

    Args:
        card: the data set.
        sample: take only the records that come with geoeq.
        root: the folder of all caches.
        processes: that read shards at once; None for as many as there are cores, up to four.
        dask: the address of a scheduler of Dask, whose workers read shards in place of processes here.

    Returns:
        The folder of the cache.

    Raises:
        DataError: a file cannot be had, or is not what the card says.
        InputError: the data are not read in shards, or Dask does not answer.
    """
    folder = cache_folder(card, sample, root)
    if _is_current(folder):
        return folder
    with _lock_file(folder.parent) as lock:
        # Several processes of one training ask at once; the others wait for the first, and find its cache.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_current(folder):
            return folder
        files = _sample_paths(card) if sample else _fetched(card, root)
        sources = {name: _state(path) | {"sha256": _sha256(path)} for name, path in files.items()}
        details = {"name": card.name, "sample": sample, "sources": sources}
        reader = make_reader(card, sample)
        if isinstance(reader, KeyedReader):
            survey = reader.survey(files)
            details |= {"notes": list(survey.notes), "graphs": dict(survey.counts), "lists": dict(survey.lists)}
        if isinstance(reader, ShardedReader):
            write_shards(folder, card, sample, reader, files, details, processes, dask)
            return folder
        if dask is not None:
            raise InputError(f"{card.name}: its reader reads the files as one, not in shards; prepare it without Dask.")
        records = reader.read(files)
        if isinstance(records, Records):
            write_store(folder, checked_arrays(card, records), details)
        else:
            write_chunks(folder, card, records, details)
    return folder


def _fetched(card: Card, root: str | Path | None) -> dict[str, Path]:
    try:
        return fetch_sources(card, cache_root(root))
    except DataError as error:
        if card.sample is None:
            raise
        hint = "Or take the few records that come with geoeq: --sample, or load(.., sample=True)."
        raise DataError(f"{error} {hint}") from error


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("w")
    except OSError as error:
        raise DataError(
            f"The cache folder {folder} cannot be written ({error}). Set the environment variable GEOEQ_CACHE to a "
            "folder of yours."
        ) from error


def _sample_files(card: Card) -> list[str]:
    if card.sample is None:
        raise DataError(f"The data set '{card.name}' has no sample.")
    return list(card.sample.files)


def _sample_paths(card: Card) -> dict[str, Path]:
    paths = {Path(file).name: Path(card.folder) / file for file in _sample_files(card)}
    for path in paths.values():
        if not path.is_file():
            raise DataError(f"The sample file {path} is missing. Reinstall geoeq with pip.")
    return paths


def _sha256(path: Path) -> str:
    """The sha256 of a file; of a folder, that of the names, sizes and times of what is in it."""
    if not path.is_dir():
        return file_sha256(path)
    states = [
        _state(item) | {"path": str(item.relative_to(path))} for item in sorted(path.rglob("*")) if item.is_file()
    ]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def _state(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "changed": status.st_mtime_ns}


def _is_current(folder: Path) -> bool:
    """Whether the cache is there and the files that it was made from are the same, or gone."""
    if not (folder / INDEX).exists():
        return False
    for known in read_index(folder)["details"]["sources"].values():
        path = Path(known["path"])
        if not path.exists():
            continue  # the archive may be deleted once the cache is made
        same = path.is_file() and _state(path).items() <= known.items()
        if not same and _sha256(path) != known["sha256"]:
            return False
    return True
