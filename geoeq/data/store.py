"""A cache of raw arrays: one ``.npy`` file per array, opened as a memory map, and an index in JSON.

The cache is written into a temporary folder that is renamed when it is complete, so that an interrupted run leaves
nothing that looks complete. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import json
import os
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geoeq.data.ragged import Array
from geoeq.documents import read_json
from geoeq.errors import DataError
from geoeq.files import atomic_folder, check_regular, file_sha256, write_text

__all__ = ["INDEX", "open_store", "read_index", "write_index", "write_store"]

INDEX = "index.json"
_VERSION = 1
_ENTRY = {"dtype", "shape", "bytes", "changed", "sha256"}

#: Errors of numpy when the header of a file is damaged.
_ERRORS: tuple[type[Exception], ...] = (EOFError, OSError, OverflowError, SyntaxError, TypeError, ValueError)
_ERRORS += (MemoryError, RecursionError, tokenize.TokenError)


def write_store(folder: Path, arrays: Mapping[str, Array], details: Mapping[str, Any]) -> None:
    """Write ``arrays`` and ``details`` (anything that JSON can hold) as the cache ``folder``, all or nothing."""
    with atomic_folder(folder) as temporary:
        for name, array in arrays.items():
            with (temporary / f"{name}.npy").open("wb") as file:
                np.save(file, np.ascontiguousarray(array), allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
        write_index(temporary, list(arrays), details)


def write_index(folder: Path, names: Sequence[str], details: Mapping[str, Any]) -> None:
    """Write the index of the arrays ``names``, whose files are in ``folder``."""
    entries = {name: _entry(folder / f"{name}.npy") for name in names}
    index = {"version": _VERSION, "details": dict(details), "arrays": entries}
    write_text(folder / INDEX, json.dumps(index, indent=1))


def _entry(path: Path) -> dict[str, Any]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    status = path.stat()
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "bytes": status.st_size,
        "changed": status.st_mtime_ns,
        "sha256": file_sha256(path),
    }


def read_index(folder: Path) -> dict[str, Any]:
    """Read the index of the cache ``folder``.

    Raises:
        DataError: the index is missing, or is not that of a cache of this version.
    """
    path = folder / INDEX
    if not path.is_file():
        raise _broken(path, "is missing")
    try:
        index = read_json(path)
        known = (
            index["version"] == _VERSION and isinstance(index["arrays"], dict) and isinstance(index["details"], dict)
        )
    except (DataError, KeyError, TypeError) as error:
        raise _broken(path, f"cannot be read ({error!r})") from error
    if not known:
        raise _broken(path, f"does not have the version {_VERSION}")
    return dict(index)


def open_store(folder: Path, verify: bool = False) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays of the cache ``folder`` as read-only memory maps, and its details.

    Sizes, types and shapes are compared with the index. The checksum of an array is compared if the file was touched
    after it was written, or if ``verify`` is set.

    Raises:
        DataError: a file is missing, truncated or altered; the message names it and the remedy.
    """
    index = read_index(folder)
    for name, entry in index["arrays"].items():
        if (
            not isinstance(entry, dict)
            or not entry.keys() >= _ENTRY
            or not isinstance(entry["shape"], list)
            or Path(name).name != name
        ):
            raise _broken(folder / INDEX, f"is altered: the entry '{name[:40]}' is not that of an array")
    arrays = {name: _open_array(folder / f"{name}.npy", entry, verify) for name, entry in index["arrays"].items()}
    return arrays, index["details"]


def _open_array(path: Path, entry: Mapping[str, Any], verify: bool) -> Array:
    check_regular(path)
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise _broken(path, "is missing") from error
    if status.st_size != entry["bytes"]:
        raise _broken(path, f"has {status.st_size} bytes instead of {entry['bytes']}: it is truncated or altered")
    if (verify or status.st_mtime_ns != entry["changed"]) and file_sha256(path) != entry["sha256"]:
        raise _broken(path, "was altered: its sha256 differs from the one in the index")
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _ERRORS as error:
        raise _broken(path, f"cannot be read ({error})") from error
    if array.dtype.str != entry["dtype"] or list(array.shape) != entry["shape"]:
        raise _broken(path, f"holds {array.dtype.str} {array.shape}, not {entry['dtype']} {tuple(entry['shape'])}")
    return array


def _broken(path: Path, fault: str) -> DataError:
    return DataError(
        f"The cached file {path} {fault}. Delete the folder {path.parent}; it is rebuilt when it is needed."
    )
