"""Read files of ``torch.save``, archives (since torch 1.6) and streams (before), and plain pickles."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from geoeq.data.containers.archive import open_members
from geoeq.data.pickles.builders import BUILDERS, NAMES, STORAGES, make_new
from geoeq.data.pickles.interpreter import Name, PickleInterpreter
from geoeq.data.ragged import Array
from geoeq.errors import DataError
from geoeq.files import check_regular

__all__ = ["load_pickle", "read_pickle"]

#: Largest size of a file, packed and unpacked, in bytes.
_LIMIT = 1 << 30

#: First bytes of a stream of torch: a pickle of the number 0x1950a86a20f9469cfc6c (LONG1).
_STREAM = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_ARCHIVE = b"PK\x03\x04"

_OTHER_END = "it has big-endian numbers, which are not supported."


def read_pickle(path: Path, limit: int = _LIMIT) -> Any:
    """Read a pickle or a file of ``torch.save``; tensors are returned as arrays, objects of PyG as ``Bag``.

    Args:
        path: path of the file.
        limit: largest size of the file, packed and unpacked, in bytes.

    Raises:
        DataError: the file is truncated, altered or too large, or requires something other than data; the message
            names it.
    """
    check_regular(path)
    size = path.stat().st_size
    if size > limit:
        raise DataError(f"{path} has {size} bytes; pickles of more than {limit} bytes are not read.")
    with path.open("rb") as file:
        archive = file.read(len(_ARCHIVE)) == _ARCHIVE
    return _read_archive(path, limit) if archive else load_pickle(path.read_bytes(), str(path))


def load_pickle(content: bytes, where: str) -> Any:
    """Read the bytes of a pickle, or of a stream of ``torch.save``.

    Args:
        content: the bytes.
        where: file and index, for messages.

    Raises:
        DataError: the content is truncated or altered, or requires something other than data.
    """
    if content[257:262] == b"ustar":
        raise DataError(
            f"{where}: it was written by a torch before 0.2, which is not supported. Save it again with a newer torch."
        )
    return (
        _load_stream(content, where)
        if content.startswith(_STREAM)
        else _interpreter(None, where).run(io.BytesIO(content), where)
    )


def _read_archive(path: Path, limit: int) -> Any:
    members: dict[str, bytes] = {}
    for name, content in open_members(path, limit):
        members[name.partition("/")[2]] = content.read()
    if "data.pkl" not in members:
        raise DataError(f"{path}: it contains no data.pkl, so it is not a file of torch.save.")
    if members.get("byteorder", b"little") != b"little":
        raise DataError(f"{path}: {_OTHER_END}")

    def stored(key: Any) -> Array:
        kind, name, count = _storage_key(key)
        return _exactly(np.frombuffer(bytearray(members[f"data/{name}"]), kind), count)

    return _interpreter(_once(stored), str(path)).run(io.BytesIO(members["data.pkl"]), str(path))


def _load_stream(content: bytes, where: str, nested: bool = False) -> Any:
    """Read five pickles (number, version, system, object, keys of the storages), then the values of the storages."""
    file = io.BytesIO(content)
    file.seek(len(_STREAM))
    _interpreter(None, where).run(file, where)
    system = _interpreter(None, where).run(file, where)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise DataError(f"{where}: {_OTHER_END}")
    storages: dict[str, Array] = {}
    remaining = len(content)

    def stored(key: Any) -> Array:
        nonlocal remaining
        kind, name, count = _storage_key(key)
        remaining -= count * kind.itemsize
        if remaining < 0:
            raise ValueError("its storages are larger than the file")
        storages[name] = np.zeros(count, kind)
        return storages[name]

    result = _interpreter(_once(stored), where, nested).run(file, where)
    keys = _interpreter(None, where).run(file, where)
    if not isinstance(keys, list) or set(keys) != storages.keys():
        raise DataError(f"{where}: the list of its storages was altered.")
    for key in keys:
        storage = storages[key]
        values = file.read(8 + storage.nbytes)
        if len(values) != 8 + storage.nbytes or struct.unpack("<q", values[:8]) != (len(storage),):
            raise DataError(f"{where}: it is truncated or altered.")
        storage[:] = np.frombuffer(values, storage.dtype, offset=8)
    return result


def _interpreter(persistent: Callable[[Any], Array] | None, where: str, nested: bool = False) -> PickleInterpreter:
    def from_bytes(inner: Any) -> Any:
        # The storage of a tensor in a plain pickle is itself a stream of torch, which contains no further stream.
        if nested or not isinstance(inner, bytes) or not inner.startswith(_STREAM):
            raise ValueError("the storage of a tensor is invalid")
        return _load_stream(inner, where, nested=True)

    builders = {**BUILDERS, Name("torch.storage", "_load_from_bytes"): from_bytes}
    return PickleInterpreter(builders, NAMES, make_new, persistent)


def _once(stored: Callable[[Any], Array]) -> Callable[[Any], Array]:
    """Return a function that reads each storage once, and returns the part of it that a tensor uses."""
    known: dict[str, Array] = {}

    def find(key: Any) -> Array:
        name = _storage_key(key)[1]
        if name not in known:
            known[name] = stored(key)
        if len(key) < 6 or key[5] is None:
            return known[name]
        _, offset, size = key[5]
        return _exactly(known[name][offset : offset + size], size)

    return find


def _storage_key(key: Any) -> tuple[np.dtype[Any], str, int]:
    """Return type, name and length of the storage ``key``: ("storage", type, name, device, length, ..)."""
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage" or key[1] not in STORAGES:
        raise ValueError("an object outside the pickle is not a storage")
    if not isinstance(key[2], str) or not isinstance(key[4], int) or key[4] < 0:
        raise ValueError("a storage has no valid name or length")
    return np.dtype(STORAGES[key[1]]), key[2], key[4]


def _exactly(storage: Array, count: int) -> Array:
    if len(storage) < count:
        raise ValueError("a storage is shorter than its stated length")
    return storage[:count]
