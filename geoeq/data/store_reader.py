"""Reader of the arrays that ``geoeq data make`` writes beside a card, in the units of geoeq."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.data.store import INDEX, open_store
from geoeq.errors import DataError

__all__ = ["StoreReader"]

#: Number of atoms in a chunk.
_CHUNK_ATOMS = 50_000


class StoreReader:
    """Reader of a folder of arrays written by ``geoeq.data.store``; every checksum is compared.

    The card names the index of the folder. The columns are the targets, in the units of ``geoeq.fields``.
    """

    version: ClassVar[int] = 1

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures, in chunks.

        Raises:
            DataError: an array is missing, truncated or altered.
        """
        for path in files.values():
            if path.name != INDEX:
                raise DataError(f"{path}: the card must name the file {INDEX} beside the arrays.")
            arrays, _ = open_store(path.parent, verify=True)
            ptr = np.asarray(arrays["ptr"])
            start = 0
            while start < len(ptr) - 1:
                stop = max(start + 1, int(np.searchsorted(ptr, ptr[start] + _CHUNK_ATOMS, side="right")) - 1)
                yield _chunk(arrays, ptr, start, stop)
                start = stop


def _chunk(arrays: Mapping[str, Array], ptr: Array, start: int, stop: int) -> Records:
    atoms, graphs = slice(int(ptr[start]), int(ptr[stop])), slice(start, stop)

    def with_prefix(prefix: str, rows: slice | None = None) -> dict[str, Array]:
        return {
            name.removeprefix(prefix): np.array(array[rows or (graphs if len(array) == len(ptr) - 1 else atoms)])
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    def optional(name: str, rows: slice) -> Array | None:
        return np.array(arrays[name][rows]) if name in arrays else None

    return Records(
        positions=np.array(arrays["positions"][atoms]),
        ptr=ptr[start : stop + 1] - ptr[start],
        numbers=optional("numbers", atoms),
        columns=with_prefix("target."),
        nodes=with_prefix("node.", atoms),
        cell=optional("cell", graphs),
        pbc=optional("pbc", graphs),
        graphs=with_prefix("graph.", graphs),
    )
