"""Records: many structures as a few flat arrays; and the readers that return them, all at once or in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from geoeq.data.edges import EdgeTable
from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["Reader", "Records", "Shard", "ShardedReader"]


@dataclass(frozen=True)
class Records:
    """G structures with N atoms in total; atoms ptr[g] to ptr[g + 1] belong to structure g.

    Attributes:
        positions: [N, 3], Å.
        ptr: [G + 1], row pointers.
        numbers: [N], atomic numbers; None for point sets.
        columns: quantities that can be targets, in the units of the file: [G], [G, d], [N] or [N, d].
        nodes: other inputs of each atom, by the name of the attribute: [N] or [N, d].
        cell: [G, 3, 3], rows are the cell vectors, Å; None if nothing is periodic.
        pbc: [G, 3], whether each direction is periodic; None if nothing is periodic.
        edges: edges that are part of the data, such as springs; None if they follow from the positions.
        graphs: other inputs or identifiers of each structure, by the name of the attribute: [G] or [G, d].
    """

    positions: Array
    ptr: Array
    numbers: Array | None
    columns: Mapping[str, Array]
    nodes: Mapping[str, Array] = field(default_factory=dict)
    cell: Array | None = None
    pbc: Array | None = None
    edges: EdgeTable | None = None
    graphs: Mapping[str, Array] = field(default_factory=dict)

    def check(self, where: str) -> None:
        """Check that the arrays have matching lengths.

        Raises:
            DataError: an array has another length; the message names it.
        """
        atoms, graphs = len(self.positions), len(self.ptr) - 1
        if graphs < 1:
            raise DataError(f"{where}: it contains no structures.")
        if self.ptr[0] != 0 or self.ptr[-1] != atoms or np.any(np.diff(self.ptr) < 1):
            raise DataError(
                f"{where}: the row pointers do not divide the {atoms} atoms into structures of at least one atom."
            )
        expected = {"numbers": (self.numbers, atoms), "cell": (self.cell, graphs), "pbc": (self.pbc, graphs)}
        expected |= {name: (array, atoms) for name, array in self.nodes.items()}
        expected |= {name: (array, graphs) for name, array in self.graphs.items()}
        for name, (array, length) in expected.items():
            if array is not None and len(array) != length:
                raise DataError(f"{where}: '{name}' has {len(array)} rows instead of {length}.")
        for name, array in self.columns.items():
            if len(array) not in (atoms, graphs):
                raise DataError(
                    f"{where}: '{name}' has {len(array)} rows instead of {graphs} (structures) or {atoms} (atoms)."
                )


class Reader(Protocol):
    """Reader of the files of one format. Its constructor takes the ``options`` of the card.

    A small data set is returned at once. A large one is a generator of chunks of some thousand structures, of which
    only one is in memory at a time. All chunks have the same arrays of the same types and widths (``cell`` and ``pbc``
    in all or none), as ``geoeq.data.chunk_frames`` returns them.

    Attributes:
        version: increase it whenever the same files give other records; caches of an older version are rebuilt.
    """

    version: ClassVar[int]

    def read(self, files: Mapping[str, Path]) -> Records | Iterator[Records]:
        """Read the records of ``files`` (name -> path).

        Raises:
            DataError: a file is truncated, altered or of another format; the message names it.
        """
        ...


@dataclass(frozen=True)
class Shard:
    """A part of the files that can be read independently.

    Attributes:
        file: name of the file, a key of ``files``.
        start: first record, counted in a unit that the reader chooses, such as lines or keys.
        stop: one past the last record; None for the end of the file.
        entry: index of the file within ``file``, if that is a folder or an archive.
        part: part of the data set, which a split can name; the file if empty. The shards of a part are consecutive.
    """

    file: str
    start: int = 0
    stop: int | None = None
    entry: int = 0
    part: str = ""

    def __str__(self) -> str:
        entry = f", file {self.entry}" if self.entry else ""
        return f"{self.file}{entry}" + (f" [{self.start}:{self.stop}]" if self.stop is not None else "")


class ShardedReader:
    """Base class of readers whose files divide into shards, which several processes read in parallel.

    Finished shards are kept when reading is interrupted. A shard should take seconds to minutes. Subclasses implement
    ``shards`` and ``read_shard``; their options are plain values, as in a card.
    """

    version: ClassVar[int]

    def shards(self, files: Mapping[str, Path]) -> Sequence[Shard]:
        """Return the shards in the order of the records; the same files give the same shards.

        Raises:
            DataError: a file is truncated, altered or of another format; the message names it.
        """
        raise NotImplementedError

    def read_shard(self, files: Mapping[str, Path], shard: Shard) -> Iterator[Records]:
        """Read the records of one shard, in chunks.

        Raises:
            DataError: a file is truncated, altered or of another format; the message names it.
        """
        raise NotImplementedError

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the records of all shards, in chunks."""
        for shard in self.shards(files):
            yield from self.read_shard(files, shard)
