"""Convert published files to a cache of arrays in the units of geoeq."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from geoeq.data.arrays import checked_arrays
from geoeq.data.card import Card
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.preparation.fetch import chosen_sources, fetch_sources, unverified
from geoeq.data.preparation.reading import make_reader, reader_options
from geoeq.data.preparation.streaming import write_chunks, write_shards
from geoeq.data.records import Records, ShardedReader
from geoeq.data.store import INDEX, read_index, write_store
from geoeq.errors import DataError, InputError
from geoeq.fields import FIELDS
from geoeq.files import file_sha256
from geoeq.resources import cache_root
from geoeq.units import conversion

__all__ = ["cache_folder", "prepare"]


def cache_folder(card: Card, sample: bool, root: str | Path | None = None) -> Path:
    """Return the folder of the cache of ``card``; a checksum in its name identifies everything it depends on."""
    inputs = {
        "reader": [card.reader, make_reader(card, sample).version, reader_options(card, sample)],
        "targets": {name: [target.column, target.unit] for name, target in card.targets.items()},
        "files": _sample_files(card) if sample else [[source.file, source.sha256] for source in card.sources],
    }
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:12]
    return cache_root(root) / card.name / f"{'sample' if sample else 'full'}-{digest}"


def prepare(
    card: Card,
    sample: bool = False,
    root: str | Path | None = None,
    processes: int | None = None,
    dask: str | None = None,
) -> Path:
    """Prepare the cache of ``card``, unless it exists and its sources are unchanged.

    Chunks are written as they are read, in bounded memory. Shards are read by several processes; finished shards are
    kept if the preparation is interrupted.

    Args:
        card: card of the data set.
        sample: whether to read only the records that are shipped with geoeq.
        root: folder of all caches.
        processes: number of processes that read shards; None for the number of cores, at most four.
        dask: address of a Dask scheduler whose workers read shards instead of processes on this machine.

    Returns:
        The folder of the cache.

    Raises:
        DataError: a file cannot be fetched, or differs from the one in the card.
        InputError: the data are not divided into shards, or Dask does not answer.
    """
    folder = cache_folder(card, sample, root)
    if _is_current(folder):
        return folder
    with _lock_file(folder.parent) as lock:
        # Several processes of one training may call this; the others wait for the first and then use its cache.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_current(folder):
            return folder
        files = _sample_paths(card) if sample else _fetched(card, root)
        sources = {name: _state(path) | {"sha256": _sha256(path)} for name, path in files.items()}
        notes = [] if sample else unverified(chosen_sources(card, cache_root(root)))
        details = {"name": card.name, "sample": sample, "sources": sources, "notes": notes}
        reader = make_reader(card, sample)
        if isinstance(reader, KeyedReader):
            survey = reader.survey(files)
            _check_units(card, survey.stated)
            details |= {"notes": [*notes, *survey.notes], "graphs": dict(survey.counts), "lists": dict(survey.lists)}
        for work in folder.parent.glob(".sample-*-work"):  # of killed runs with other files or options
            if work.name != f".{folder.name}-work":
                shutil.rmtree(work, ignore_errors=True)
        if isinstance(reader, ShardedReader):
            write_shards(folder, card, sample, reader, files, details, processes, dask)
            return folder
        if dask is not None:
            raise InputError(f"{card.name}: its reader does not divide the files into shards; prepare it without Dask.")
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
        hint = "Or use the few records that are shipped with geoeq: --sample, or load(.., sample=True)."
        raise DataError(f"{error} {hint}") from error


def _check_units(card: Card, stated: Mapping[str, str]) -> None:
    """Refuse a card whose units contradict those that the files state."""
    for name, target in card.targets.items():
        unit = stated.get(target.column)
        factor = None if unit is None else conversion(unit, FIELDS[name].unit)
        if factor is not None and not np.isclose(target.to_internal(name), factor, rtol=1e-6):
            raise DataError(
                f"{card.name}/card.yaml: the key 'targets.{name}.unit' is '{target.unit}', but the file states "
                f"'{unit}' for '{target.column}'."
            )


def _lock_file(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("w")
    except OSError as error:
        raise DataError(
            f"The cache folder {folder} cannot be written ({error}). Set the environment variable GEOEQ_CACHE to a "
            "folder that you can write."
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
    """Return the sha256 of a file; for a folder, that of the names, sizes and times of its files."""
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
    """Return whether the cache exists and its source files are unchanged or deleted."""
    if not (folder / INDEX).exists():
        return False
    for known in read_index(folder)["details"]["sources"].values():
        path = Path(known["path"])
        if not path.exists():
            continue  # the source may be deleted after the preparation
        same = path.is_file() and _state(path).items() <= known.items()
        if not same and _sha256(path) != known["sha256"]:
            return False
    return True
