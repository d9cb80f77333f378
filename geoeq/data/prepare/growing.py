"""One array in a ``.npy`` file to which rows are appended, so that it never has to be in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["GrowingArray"]

_BLOCK_BYTES = 1 << 23


class GrowingArray:
    """The rows of one array, on disk.

    The number of rows is written into the file by ``finish``; until then it is no valid array.

    Args:
        path: of the file, which is made, or continued by ``restore``.
        dtype: of the array.
        row: the shape of one row.
        pointers: it holds row pointers, of which each piece begins at 0: they are shifted by the last one so far.

    Attributes:
        rows: how many there are.
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
        """Write the rows of ``array``, in memory or a memory map, after those that are there.

        Raises:
            DataError: they are of another type or shape.
        """
        if array.shape[1:] != self.row or not np.can_cast(array.dtype, self.dtype, "safe"):
            raise DataError(
                f"the rows of '{self.path.stem}' are {array.dtype} {list(array.shape[1:])}; those before are "
                f"{self.dtype} {list(self.row)}. All structures of a data set have the same."
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
        """Write all to disk; the sha256 of what was appended since the last time."""
        self._file.flush()
        os.fsync(self._file.fileno())
        digest, self._digest = self._digest.hexdigest(), hashlib.sha256()
        return digest

    def restore(self, pieces: Sequence[tuple[int, str]]) -> None:
        """Go on after what is there.

        Args:
            pieces: of each ``commit``, the rows that there were, and what it returned.

        Raises:
            DataError: the file holds something else.
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
        # numpy pads it, so that its length does not depend on the number of rows.
        described = np.lib.format.dtype_to_descr(self.dtype)
        header = {"descr": described, "fortran_order": False, "shape": (self.rows, *self.row)}
        np.lib.format.write_array_header_1_0(self._file, header)


def _blocks(array: Array, skip: int, rows: int) -> Iterator[Array]:
    """``array`` without its first ``skip`` rows. A memory map is read as a file: its pages would stay in memory."""
    if not isinstance(array, np.memmap) or array.filename is None:
        yield from (array[start : start + rows] for start in range(skip, len(array), rows))
        return
    row_items = int(np.prod(array.shape[1:], dtype=np.int64))
    with open(array.filename, "rb") as file:
        file.seek(array.offset + skip * row_items * array.itemsize)
        for start in range(skip, len(array), rows):
            count = min(rows, len(array) - start)
            yield np.fromfile(file, array.dtype, count * row_items).reshape(count, *array.shape[1:])
