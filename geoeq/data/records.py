"""What a reader returns: many structures as a few flat arrays, whole or in chunks."""

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
        graphs: other inputs or names of each structure, by the name of the attribute: [G] or [G, d].
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
        expected |= {name: (array, graphs) for name, array in self.graphs.items()}
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

    A small data set is returned whole. A large one is a generator of chunks of some thousand structures, of which
    only one at a time is held: all chunks have the same arrays, of the same types and widths (``cell`` and ``pbc`` in
    all or in none), as ``in_chunks`` of ``geoeq.data.prepare.chunks`` makes them.

    Attributes:
        version: raised whenever the same files give other records; caches of an older version are made anew.
    """

    version: ClassVar[int]

    def read(self, files: Mapping[str, Path]) -> Records | Iterator[Records]:
        """The records in ``files`` (name -> path).

        Raises:
            DataError: a file is truncated, altered or of another format; the message names it.
        """
        ...


@dataclass(frozen=True)
class Shard:
    """A part of the files that can be read alone.

    Attributes:
        file: the name of the file, a key of ``files``.
        start: the first record; what is counted (lines, keys) is the affair of the reader.
        stop: one past the last; None for the end of the file.
        entry: which file it is, where ``file`` is a folder or an archive of several.
        part: of the data set, which a split can name; its file if empty. The shards of a part follow each other.
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
    """A reader of files that divide into shards, which several processes read at once.

    What was read before a kill is kept, shard by shard. A shard should take seconds to minutes. Readers derive from
    this and implement ``shards`` and ``read_shard``; their options are plain values, as a card has them.
    """

    version: ClassVar[int]

    def shards(self, files: Mapping[str, Path]) -> Sequence[Shard]:
        """The shards in the order of the records. The same files give the same.

        Raises:
            DataError: a file is truncated, altered or of another format; the message names it.
        """
        raise NotImplementedError

    def read_shard(self, files: Mapping[str, Path], shard: Shard) -> Iterator[Records]:
        """The records of one shard, in chunks.

        Raises:
            DataError: a file is truncated, altered or of another format; the message names it.
        """
        raise NotImplementedError

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """The records of all shards, in chunks."""
        for shard in self.shards(files):
            yield from self.read_shard(files, shard)
