"""LMDB files of pickled Data of PyG (.lmdb), and of rows of ASE's database (.aselmdb)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from geoeq.data.catalysts.entries import Entry
from geoeq.data.catalysts.frames import Task, fixed_atoms, frames_of, make_frame
from geoeq.data.containers.lmdb_file import LMDBFile
from geoeq.data.pickles import load_pickle
from geoeq.data.preparation.chunks import Frame
from geoeq.data.ragged import Array
from geoeq.documents import parse_json
from geoeq.errors import DataError

__all__ = ["count_keys", "read_pickled", "read_rows"]

#: Largest size of an unpacked row of ASE's database in bytes; a row of 1000 atoms has about 200 000.
_LARGEST_ROW = 1 << 26


def count_keys(entry: Entry) -> int:
    """Return the number of numbered keys of an LMDB file; some of them may be deleted in a file of ASE.

    Raises:
        DataError: the file is truncated or altered.
    """
    with _opened(entry) as file:
        if entry.name.endswith(".aselmdb"):
            following = file.get(b"nextid")
            count = file.entries if following is None else _row(following, f"{entry}: nextid") - 1
        else:
            length = file.get(b"length")
            count = file.entries if length is None else load_pickle(length, f"{entry}: length")
    if not isinstance(count, int) or not 0 <= count <= (1 << 40):
        raise DataError(f"{entry}: the number of structures is invalid. The file was altered.")
    return count


def read_pickled(entry: Entry, start: int, stop: int, task: Task) -> Iterator[Frame]:
    """Yield the structures of the keys ``start`` to ``stop``, each a pickled Data of PyG.

    Raises:
        DataError: the file was altered, or a pickle requires something other than data.
    """
    with _opened(entry) as file:
        for number in range(start, stop):
            where = f"{entry}: structure {number}"
            content = file.get(str(number).encode())
            if content is None:
                raise DataError(f"{where}: it is missing. The file is truncated or altered.")
            yield from frames_of(load_pickle(content, where), where, task)


def read_rows(entry: Entry, start: int, stop: int, task: Task) -> Iterator[Frame]:
    """Yield the structures of the keys ``start`` + 1 to ``stop``, each a row of ASE's database, except deleted ones.

    Raises:
        DataError: the file was altered, or a row is not one of ASE.
    """
    if task.relaxed:
        raise DataError(f"{entry}: LMDB files of ASE contain no relaxed structures.")
    with _opened(entry) as file:
        content = file.get(b"deleted_ids")
        deleted = set() if content is None else {key for key in _row(content, str(entry)) if isinstance(key, int)}
        for number in range(start + 1, stop + 1):
            if number in deleted:
                continue
            where = f"{entry}: row {number}"
            content = file.get(str(number).encode())
            if content is None:
                raise DataError(f"{where}: it is missing. The file is truncated or altered.")
            yield _frame(_row(content, where), where, task)


def _frame(row: Any, where: str, task: Task) -> Frame:
    try:
        count = len(_values(row["numbers"]))
        constraints = row.get("constraints", [])
        atoms = {
            "pos": np.reshape(_values(row["positions"]), (count, 3)),
            "atomic_numbers": _values(row["numbers"]),
            "cell": np.reshape(_values(row["cell"]), (3, 3)),
            "tags": _values(row.get("tags", np.zeros(count, dtype=np.int64))),
            "fixed": fixed_atoms(
                where, count, parse_json(constraints, where) if isinstance(constraints, str) else constraints
            ),
            "pbc": _values(row["pbc"]),
        }
        names = {**row.get("key_value_pairs", {}), **row.get("data", {})}
        system, frame = names.get("sid"), names.get("fid")
        energies = task.energies({"energy": row["energy"]}, system)
        forces = np.reshape(_values(row["forces"]), (count, 3))
    except KeyError as error:
        raise DataError(f"{where}: it has no {error}.") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{where}: it is not a row of this data set: {error}.") from error
    return make_frame(where, atoms, energies, {"forces": forces}, system, frame)


def _values(content: Any) -> Array:
    """Return an array, which ASE writes as a list, or as shape, type and list."""
    if isinstance(content, dict) and isinstance(content.get("__ndarray__"), list):
        shape, kind, values = content["__ndarray__"]
        return np.asarray(values, dtype=np.dtype(kind)).reshape(shape)
    return np.asarray(content)


def _row(content: bytes, where: str) -> Any:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(content, _LARGEST_ROW)
        if not unpacker.eof:
            raise DataError(f"{where}: it is truncated, or unpacks to more than {_LARGEST_ROW} bytes.")
    except zlib.error as error:
        raise DataError(f"{where}: it is truncated or altered ({error}).") from error
    return parse_json(text, where)


def _opened(entry: Entry) -> LMDBFile:
    if entry.name.rpartition("/")[2] != entry.path.name:
        raise DataError(f"{entry}: an LMDB file cannot be read within an archive; unpack the archive.")
    return LMDBFile(entry.path)
