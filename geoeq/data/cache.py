"""From published files to a cache of arrays in the units of geoeq."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import inspect
import json
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from geoeq.checks import check_inputs
from geoeq.data.card import Card
from geoeq.data.dataset import Dataset
from geoeq.data.fetch import fetch_sources
from geoeq.data.ragged import Array
from geoeq.data.records import Reader, Records
from geoeq.data.store import INDEX, file_sha256, read_index, write_store
from geoeq.errors import DataError, InputError, unknown_name
from geoeq.fields import FIELDS
from geoeq.resources import cache_root

__all__ = ["cache_folder", "check_structures", "make_reader", "prepare", "to_arrays"]

_CHECKED_AT_ONCE = 512


def cache_folder(card: Card, sample: bool, root: str | Path | None = None) -> Path:
    """The folder of the cache of ``card``. Its name has a checksum of all that decides what is in it."""
    decides = {
        "reader": [card.reader, make_reader(card, sample).version, _options(card, sample)],
        "targets": {name: [target.column, target.unit] for name, target in card.targets.items()},
        "files": _sample_files(card) if sample else [[source.file, source.sha256] for source in card.sources],
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    return cache_root(root) / card.name / f"{'sample' if sample else 'full'}-{digest}"


def prepare(card: Card, sample: bool = False, root: str | Path | None = None) -> Path:
    """Make the cache of ``card`` unless it is there and its source is unchanged.

    Args:
        card: the data set.
        sample: take only the records that come with geoeq.
        root: the folder of all caches.

    Returns:
        The folder of the cache.

    Raises:
        DataError: a file cannot be had, or is not what the card says.
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
        arrays = to_arrays(card, make_reader(card, sample).read(files))
        check_structures(Dataset(card, arrays))
        sources = {name: _state(path) | {"sha256": file_sha256(path)} for name, path in files.items()}
        write_store(folder, arrays, {"name": card.name, "sample": sample, "sources": sources})
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


def make_reader(card: Card, sample: bool = False) -> Reader:
    """The reader that the card names, with the options of the card.

    Raises:
        DataError: there is no such class, it is not a reader, or it has no such option.
    """
    where = f"{card.name}/card.yaml"
    module, _, name = card.reader.rpartition(".")
    try:
        kind: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise DataError(f"{where}: the reader '{card.reader}' cannot be imported: {error}") from error
    if not (inspect.isclass(kind) and hasattr(kind, "read") and isinstance(getattr(kind, "version", None), int)):
        raise DataError(f"{where}: the reader '{card.reader}' is not a class with 'version' and 'read'.")
    options, known = _options(card, sample), set(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            raise DataError(f"{where}: options: {unknown_name('option', option, known)}")
    try:
        return cast(Reader, kind(**options))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: options: {error}") from error


def to_arrays(card: Card, records: Records) -> dict[str, Array]:
    """The records as named arrays, targets in the units of geoeq."""
    where = card.name
    records.check(where)
    arrays: dict[str, Array] = {"positions": records.positions, "ptr": np.asarray(records.ptr, dtype=np.int64)}
    optional = {"numbers": records.numbers, "cell": records.cell, "pbc": records.pbc}
    arrays |= {name: array for name, array in optional.items() if array is not None}
    arrays |= {f"node.{name}": array for name, array in records.nodes.items()}
    if records.edges is not None:
        arrays |= {f"edge.{name}": array for name, array in records.edges.arrays().items()}
    for name, target in card.targets.items():
        if target.column not in records.columns:
            raise DataError(f"{where}: targets.{name}: {unknown_name('column', target.column, records.columns)}")
        values = np.asarray(records.columns[target.column], dtype=np.float64) * target.to_internal(name)
        rows = len(records.positions) if FIELDS[name].level == "node" else len(records.ptr) - 1
        if len(values) != rows:
            raise DataError(
                f"{where}: targets.{name}: the column '{target.column}' has {len(values)} rows; "
                f"a quantity of a {FIELDS[name].level} has {rows}."
            )
        arrays[f"target.{name}"] = values
    return arrays


def check_structures(dataset: Dataset) -> None:
    """Look for structures that cannot be what was meant.

    Raises:
        InputError: one is found; the message gives its place in the data set, counted from 0, and the atom.
    """
    for start in range(0, len(dataset), _CHECKED_AT_ONCE):
        places = range(start, min(start + _CHECKED_AT_ONCE, len(dataset)))
        try:
            check_inputs(dataset.batch(places, dtype=torch.float64))
        except InputError:
            for place in places:
                _check_structure(dataset, place)
            raise


def _check_structure(dataset: Dataset, place: int) -> None:
    try:
        check_inputs(dataset.batch([place], dtype=torch.float64))
    except InputError as error:
        raise type(error)(f"{dataset.card.name}: structure {place}: {error}") from error


def _options(card: Card, sample: bool) -> dict[str, object]:
    return {**card.options, **(card.sample.options if sample and card.sample else {})}


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


def _state(path: Path) -> dict[str, Any]:
    status = path.stat()
    return {"path": str(path), "bytes": status.st_size, "changed": status.st_mtime_ns}


def _is_current(folder: Path) -> bool:
    """Whether the cache is there and the files that it was made from are the same, or gone."""
    if not (folder / INDEX).exists():
        return False
    for known in read_index(folder)["details"]["sources"].values():
        path = Path(known["path"])
        if not path.is_file():
            continue  # the archive may be deleted once the cache is made
        same = _state(path).items() <= known.items()
        if not same and file_sha256(path) != known["sha256"]:
            return False
    return True
