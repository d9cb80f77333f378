"""Collect single structures into records, all at once or in chunks of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError

__all__ = ["Frame", "chunk_frames", "join", "stack"]

#: Number of atoms in a chunk: a few megabytes of arrays.
_CHUNK_ATOMS = 50_000


@dataclass(frozen=True)
class Frame:
    """One structure of n atoms, in the units of its file.

    Attributes:
        positions: [n, 3], Å.
        numbers: [n], atomic numbers; None for points.
        of_graph: columns of the structure, a number or [d] each, in the units of the file.
        of_nodes: columns of its atoms, [n] or [n, d] each, in the units of the file.
        nodes: other inputs of its atoms, [n] or [n, d] each.
        graphs: other inputs or identifiers of the structure, a number or [d] each.
        cell: [3, 3], rows are the cell vectors, Å; None if nothing in the data set is periodic.
        pbc: [3], whether each direction is periodic; None if nothing in the data set is periodic.
        where: file and index, for messages.
    """

    positions: Array
    numbers: Array | None
    of_graph: Mapping[str, Array | float] = field(default_factory=dict)
    of_nodes: Mapping[str, Array] = field(default_factory=dict)
    nodes: Mapping[str, Array] = field(default_factory=dict)
    graphs: Mapping[str, Array | float] = field(default_factory=dict)
    cell: Array | None = None
    pbc: Array | None = None
    where: str = ""


def chunk_frames(frames: Iterable[Frame], atoms: int = _CHUNK_ATOMS) -> Iterator[Records]:
    """Yield records of about ``atoms`` atoms each; a larger structure forms a chunk with those before it.

    Raises:
        DataError: a structure has no atoms, or other arrays than the one before it.
    """
    waiting: list[Frame] = []
    count = 0
    for frame in frames:
        waiting.append(frame)
        count += len(frame.positions)
        if count >= atoms:
            yield stack(waiting)
            waiting, count = [], 0
    if waiting:
        yield stack(waiting)


def stack(frames: Sequence[Frame]) -> Records:
    """Return the records of one or more structures, which must have the same columns.

    Raises:
        DataError: a structure has no atoms, or other arrays than the first.
    """
    first = frames[0]
    for frame in frames:
        _compare(first, frame)
    columns = {name: np.stack([np.asarray(frame.of_graph[name]) for frame in frames]) for name in first.of_graph}
    columns |= {name: np.concatenate([frame.of_nodes[name] for frame in frames]) for name in first.of_nodes}
    return Records(
        positions=np.concatenate([frame.positions for frame in frames]),
        ptr=np.concatenate([[0], np.cumsum([len(frame.positions) for frame in frames], dtype=np.int64)]),
        numbers=_optional([frame.numbers for frame in frames], np.concatenate),
        columns=columns,
        nodes={name: np.concatenate([frame.nodes[name] for frame in frames]) for name in first.nodes},
        cell=_optional([frame.cell for frame in frames], np.stack),
        pbc=_optional([frame.pbc for frame in frames], np.stack),
        graphs={name: np.stack([np.asarray(frame.graphs[name]) for frame in frames]) for name in first.graphs},
    )


def join(chunks: Iterable[Records], where: str) -> Records:
    """Concatenate chunks in memory.

    Args:
        chunks: chunks that a reader yields.
        where: the file, for messages.

    Raises:
        DataError: there are no chunks, or one has other arrays than the first.
    """
    parts = list(chunks)
    if not parts:
        raise DataError(f"{where}: it contains no structures.")
    first = parts[0]
    if any(part.edges is not None for part in parts):
        raise DataError(f"{where}: records that include edges cannot be joined; read them all at once.")
    names = [_names(part) for part in parts]
    if any(other != names[0] for other in names):
        raise DataError(f"{where}: some chunks have other arrays than the first, which has {sorted(names[0])}.")
    ends = np.cumsum([part.ptr[-1] for part in parts], dtype=np.int64)
    return Records(
        positions=np.concatenate([part.positions for part in parts]),
        ptr=np.concatenate([first.ptr, *[part.ptr[1:] + end for part, end in zip(parts[1:], ends)]]),
        numbers=_optional([part.numbers for part in parts], np.concatenate),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in first.columns},
        nodes={name: np.concatenate([part.nodes[name] for part in parts]) for name in first.nodes},
        cell=_optional([part.cell for part in parts], np.concatenate),
        pbc=_optional([part.pbc for part in parts], np.concatenate),
        graphs={name: np.concatenate([part.graphs[name] for part in parts]) for name in first.graphs},
    )


def _names(part: Frame | Records) -> set[str]:
    """Return the names of all arrays of ``part``."""
    columns = {**part.of_graph, **part.of_nodes} if isinstance(part, Frame) else part.columns
    named = {"column": columns, "input of atoms": part.nodes, "input of structures": part.graphs}
    optional = {"numbers": part.numbers, "cell": part.cell, "pbc": part.pbc}
    return {f"{kind} {name}" for kind, arrays in named.items() for name in arrays} | {
        name for name, array in optional.items() if array is not None
    }


def _compare(first: Frame, frame: Frame) -> None:
    where = frame.where or "A structure"
    if len(frame.positions) == 0:
        raise DataError(f"{where}: it has no atoms.")
    odd = sorted(_names(first) ^ _names(frame))
    if odd:
        verb = "lacks" if odd[0] in _names(first) else "has"
        raise DataError(f"{where}: it {verb} '{odd[0]}', unlike {first.where or 'the one before it'}.")
    for name, array in {**frame.of_nodes, **frame.nodes, "numbers": frame.numbers}.items():
        if array is not None and len(array) != len(frame.positions):
            raise DataError(f"{where}: '{name}' has {len(array)} rows instead of {len(frame.positions)}.")


def _optional(arrays: Sequence[Array | None], combine: Callable[[Sequence[Array]], Array]) -> Array | None:
    """Combine the arrays that are not None, if there are any."""
    present = [array for array in arrays if array is not None]
    return combine(present) if present else None
