"""What a reader returns: many structures as a few flat arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from geoeq.data.edges import EdgeTable
from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["Reader", "Records"]


@dataclass(frozen=True)
class Records:
    """G structures with N atoms altogether; atoms ptr[g] to ptr[g + 1] belong to structure g.

    Attributes:
        positions: [N, 3], Å.
        ptr: [G + 1].
        numbers: [N] atomic numbers; None for point sets.
        columns: what can be a target, in the units of the file: [G], [G, d], [N] or [N, d].
        nodes: other inputs of each atom, by the name of the attribute: [N] or [N, d].
        cell: [G, 3, 3], rows are the cell vectors, Å; None if nothing is periodic.
        pbc: [G, 3]; None if nothing is periodic.
        edges: edges that belong to the data, such as springs; None if they follow from positions.
    """

    positions: Array
    ptr: Array
    numbers: Array | None
    columns: Mapping[str, Array]
    nodes: Mapping[str, Array] = field(default_factory=dict)
    cell: Array | None = None
    pbc: Array | None = None
    edges: EdgeTable | None = None

    def check(self, where: str) -> None:
        """Compare the lengths of the arrays.

        Raises:
            DataError: they do not fit together; the message names the array.
        """
        atoms, graphs = len(self.positions), len(self.ptr) - 1
        if graphs < 1:
            raise DataError(f"{where}: there is not one structure in it.")
        if self.ptr[0] != 0 or self.ptr[-1] != atoms or np.any(np.diff(self.ptr) < 1):
            raise DataError(
                f"{where}: the row pointers do not divide the {atoms} atoms into structures of one or more."
            )
        expected = {"numbers": (self.numbers, atoms), "cell": (self.cell, graphs), "pbc": (self.pbc, graphs)}
        expected |= {name: (array, atoms) for name, array in self.nodes.items()}
        for name, (array, length) in expected.items():
            if array is not None and len(array) != length:
                raise DataError(f"{where}: '{name}' has {len(array)} rows; {length} would be right.")
        for name, array in self.columns.items():
            if len(array) not in (atoms, graphs):
                raise DataError(
                    f"{where}: '{name}' has {len(array)} rows; {graphs} (structures) or {atoms} (atoms) would be right."
                )


class Reader(Protocol):
    """Turns the files of one format into records. Its constructor takes the ``options`` of the card.

    Attributes:
        version: raised whenever the same files give other records; caches of an older version are made anew.
    """

    version: ClassVar[int]

    def read(self, files: Mapping[str, Path]) -> Records:
        """The records in ``files`` (name -> path).

        Raises:
            DataError: a file is truncated, altered or of another format; the message names it.
        """
        ...
