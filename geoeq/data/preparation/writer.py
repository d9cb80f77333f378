"""A cache that grows piece by piece in bounded memory, and that can be continued after a kill.

Its arrays are in the folder as ``geoeq.data.store`` expects them, but without an index, so that an incomplete cache
cannot be opened. A journal records the lengths of the arrays after each complete piece and the checksum of the piece;
anything beyond is cut off when writing resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from geoeq.data.ragged import Array
from geoeq.data.store import write_index
from geoeq.documents import parse_json
from geoeq.errors import DataError

__all__ = ["StoreWriter"]

_POINTERS = ("ptr", "edge.ptr")
_JOURNAL = "journal.jsonl"
_BLOCK_BYTES = 1 << 23


class StoreWriter:
    """Appends to the arrays in ``folder``, which is created if it does not exist; a context manager.

    If the folder was written to before, its content up to the last ``commit`` is verified and kept.

    Attributes:
        committed: labels of the complete pieces, in order.

    Raises:
        DataError: the files were truncated or altered.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._arrays: dict[str, _GrowingArray] = {}
        self._journal = folder / _JOURNAL
        entries = _read_journal(self._journal)
        self.committed: list[Any] = [entry["label"] for entry in entries]
        try:
            for name, (dtype, row, _, _) in entries[-1]["arrays"].items() if entries else ():
                self._arrays[name] = self._open(name, np.dtype(dtype), row)
                self._arrays[name].restore([(entry["arrays"][name][2], entry["arrays"][name][3]) for entry in entries])
        except DataError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; pieces that were not committed are lost."""
        for array in self._arrays.values():
            array.close()

    def _open(self, name: str, dtype: np.dtype[Any], row: Sequence[int]) -> _GrowingArray:
        return _GrowingArray(self.folder / f"{name}.npy", dtype, row, name in _POINTERS)

    def append(self, arrays: Mapping[str, Array]) -> None:
        """Append ``arrays``, whose row pointers begin at 0.

        Raises:
            DataError: their names, types or shapes differ from those of the first piece.
        """
        if not self._arrays:
            self._arrays = {name: self._open(name, array.dtype, array.shape[1:]) for name, array in arrays.items()}
        odd = sorted(self._arrays.keys() ^ arrays.keys())
        if odd:
            verb = "lack" if odd[0] in self._arrays else "have"
            raise DataError(f"some structures {verb} '{odd[0]}', unlike those before them.")
        for name, array in arrays.items():
            self._arrays[name].append(array)

    def commit(self, label: Any) -> None:
        """Complete a piece, which is then kept whatever happens later; ``label`` is anything that JSON can hold."""
        states = {
            name: [array.dtype.str, list(array.row), array.rows, array.commit()] for name, array in self._arrays.items()
        }
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"label": label, "arrays": states}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.committed.append(label)

    def finish(self, details: Mapping[str, Any]) -> None:
        """Complete the cache and write its index, so that it can be opened."""
        for array in self._arrays.values():
            array.finish()
        write_index(self.folder, list(self._arrays), details)
        self._journal.unlink(missing_ok=True)


def _read_journal(journal: Path) -> list[dict[str, Any]]:
    """Read the entries of the journal; an incomplete last line is removed from the file."""
    if not journal.exists():
        return []
    lines = journal.read_bytes().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith(b"\n")]
    if len(complete) < len(lines):
        journal.write_bytes(b"".join(complete))
    return [parse_json(line, str(journal)) for line in complete]


class _GrowingArray:
    """An array in a ``.npy`` file to which rows are appended, so that it never has to fit into memory.

    ``finish`` writes the number of rows into the header; until then the file is not a valid array.

    Args:
        path: path of the file, which is created, or continued by ``restore``.
        dtype: data type of the array.
        row: shape of one row.
        pointers: whether the array holds row pointers. Those of each piece begin at 0 and are shifted by the last one.

    Attributes:
        rows: number of rows.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], row: Sequence[int], pointers: bool = False) -> None:
        self.path, self.dtype, self.row, self.pointers = path, dtype, tuple(row), pointers
        self.rows = 0
        self._last = 0
        self._digest = hashlib.sha256()
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        self._write_header()
        self._start = self._file.tell()
        self._row_bytes = dtype.itemsize * int(np.prod(self.row, dtype=np.int64))

    def append(self, array: Array) -> None:
        """Append the rows of ``array``, which is in memory or a memory map.

        Raises:
            DataError: the rows have another type or shape.
        """
        if array.shape[1:] != self.row or not np.can_cast(array.dtype, self.dtype, "safe"):
            raise DataError(
                f"the rows of '{self.path.stem}' are {array.dtype} {list(array.shape[1:])}, but earlier ones are "
                f"{self.dtype} {list(self.row)}. All structures of a data set must have the same."
            )
        skip = 1 if self.pointers and self.rows else 0
        shift = np.asarray(self._last, dtype=self.dtype)
        for block in _blocks(array, skip, max(1, _BLOCK_BYTES // max(1, self._row_bytes))):
            block = block + shift if self.pointers else np.ascontiguousarray(block, dtype=self.dtype)
            content = block.tobytes()
            self._digest.update(content)
            self._file.write(content)
            self.rows += len(block)
            if self.pointers:
                self._last = int(block[-1])

    def commit(self) -> str:
        """Flush to disk, and return the sha256 of the rows since the last commit."""
        self._file.flush()
        os.fsync(self._file.fileno())
        digest, self._digest = self._digest.hexdigest(), hashlib.sha256()
        return digest

    def restore(self, pieces: Sequence[tuple[int, str]]) -> None:
        """Continue after the committed rows of the file.

        Args:
            pieces: for each commit, the number of rows and the checksum that it returned.

        Raises:
            DataError: the file was truncated or altered.
        """
        self._file.seek(self._start)
        for end, expected in pieces:
            digest = hashlib.sha256()
            left = (end - self.rows) * self._row_bytes
            while left and (content := self._file.read(min(left, _BLOCK_BYTES))):
                digest.update(content)
                left -= len(content)
            if left or digest.hexdigest() != expected:
                raise DataError(f"{self.path} was truncated or altered.")
            self.rows = end
        self._file.truncate()
        if self.pointers and self.rows:
            self._file.seek(-self._row_bytes, os.SEEK_END)
            self._last = int(np.fromfile(self._file, self.dtype, 1)[0])

    def finish(self) -> None:
        """Write the number of rows and close the file."""
        self._file.seek(0)
        self._write_header()
        self.commit()
        self.close()

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()

    def _write_header(self) -> None:
        # numpy pads the header, so that its length does not depend on the number of rows.
        described = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": described, "fortran_order": False, "shape": (self.rows, *self.row)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _blocks(array: Array, skip: int, rows: int) -> Iterator[Array]:
    """Yield ``array`` without its first ``skip`` rows. A memory map is read as a file, as its pages stay in memory."""
    if not isinstance(array, np.memmap) or array.filename is None:
        yield from (array[start : start + rows] for start in range(skip, len(array), rows))
        return
    row_items = int(np.prod(array.shape[1:], dtype=np.int64))
    with open(array.filename, "rb") as file:
        file.seek(array.offset + skip * row_items * array.itemsize)
        for start in range(skip, len(array), rows):
            count = min(rows, len(array) - start)
            yield np.fromfile(file, array.dtype, count * row_items).reshape(count, *array.shape[1:])
