"""A cache that grows piece by piece in bounded memory, and goes on where it was killed.

Its arrays lie in the folder as ``geoeq.data.store`` opens them, but without an index, so that nothing opens them before
they are whole. A journal tells how long each was when the last piece was complete, and the checksum of each piece;
what came after is cut off when the writing goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from geoeq.data.prepare.growing import GrowingArray
from geoeq.data.ragged import Array
from geoeq.data.store import write_index
from geoeq.errors import DataError

__all__ = ["StoreWriter"]

_POINTERS = ("ptr", "edge.ptr")
_JOURNAL = "journal.jsonl"


class StoreWriter:
    """Appends to the arrays in ``folder``, which is made if it is not there; a context manager that closes the files.

    If it was written to before, what is there up to the last ``commit`` is checked and kept.

    Attributes:
        committed: the labels of the pieces that are complete, in their order.

    Raises:
        DataError: what is there is not what was written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._arrays: dict[str, GrowingArray] = {}
        self._journal = folder / _JOURNAL
        entries = _entries(self._journal)
        self.committed: list[Any] = [entry["label"] for entry in entries]
        try:
            for name, (dtype, row, _, _) in entries[-1]["arrays"].items() if entries else ():
                self._arrays[name] = self._grow(name, np.dtype(dtype), row)
                self._arrays[name].restore([(entry["arrays"][name][2], entry["arrays"][name][3]) for entry in entries])
        except DataError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; what was not committed is lost."""
        for array in self._arrays.values():
            array.close()

    def _grow(self, name: str, dtype: np.dtype[Any], row: list[int] | tuple[int, ...]) -> GrowingArray:
        return GrowingArray(self.folder / f"{name}.npy", dtype, row, name in _POINTERS)

    def append(self, arrays: Mapping[str, Array]) -> None:
        """Write ``arrays`` after those that are there; row pointers begin at 0.

        Raises:
            DataError: they are not those of the first piece, or of another type or shape.
        """
        if not self._arrays:
            self._arrays = {name: self._grow(name, array.dtype, array.shape[1:]) for name, array in arrays.items()}
        odd = sorted(self._arrays.keys() ^ arrays.keys())
        if odd:
            there = "lack" if odd[0] in self._arrays else "have"
            raise DataError(f"some structures {there} '{odd[0]}', unlike those before them.")
        for name, array in arrays.items():
            self._arrays[name].append(array)

    def commit(self, label: Any) -> None:
        """The piece ``label`` (anything JSON can hold) is complete: it is kept, whatever happens to what follows."""
        states = {
            name: [array.dtype.str, list(array.row), array.rows, array.commit()] for name, array in self._arrays.items()
        }
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"label": label, "arrays": states}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.committed.append(label)

    def finish(self, details: Mapping[str, Any]) -> None:
        """The cache is whole: it gets its index, and can be opened."""
        for array in self._arrays.values():
            array.finish()
        write_index(self.folder, list(self._arrays), details)
        self._journal.unlink(missing_ok=True)


def _entries(journal: Path) -> list[dict[str, Any]]:
    """The lines of the journal; the last one may have been cut off, and is cut off here."""
    if not journal.exists():
        return []
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    if len(whole) < len(lines):
        journal.write_bytes(b"".join(whole))
    return [json.loads(line) for line in whole]
