"""Records of many structures with the same number of atoms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from geoeq.data.preparation.chunks import join
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError

__all__ = ["atomic_numbers", "merged", "slices", "uniform"]

_CHUNK_ATOMS = 100_000


def slices(structures: int, atoms: int) -> Iterator[slice]:
    """Yield consecutive slices of ``structures``, of about 100 000 atoms each."""
    step = max(_CHUNK_ATOMS // max(atoms, 1), 1)
    return (slice(start, min(start + step, structures)) for start in range(0, structures, step))


def merged(parts: Iterable[Records], where: str = "") -> Iterator[Records]:
    """Merge small records into chunks of about 100 000 atoms."""
    waiting: list[Records] = []
    atoms = 0
    for part in parts:
        waiting.append(part)
        atoms += len(part.positions)
        if atoms >= _CHUNK_ATOMS:
            yield join(waiting, where)
            waiting, atoms = [], 0
    if waiting:
        yield join(waiting, where)


def uniform(
    numbers: Array,
    positions: Array,
    of_graphs: Mapping[str, Array],
    of_nodes: Mapping[str, Array],
    cell: Array | None = None,
    pbc: Array | None = None,
) -> Records:
    """Return the records of G structures of n atoms each.

    Shapes:
        numbers: [n] or [G, n]. positions: [G, n, 3] Å. of_graphs: [G, ..] each. of_nodes: [G, n, ..] each.
        cell: [3, 3] or [G, 3, 3] Å. pbc: [3] or [G, 3].
    """
    count, atoms = positions.shape[:2]
    return Records(
        positions=positions.reshape(-1, 3),
        ptr=np.arange(count + 1, dtype=np.int64) * atoms,
        numbers=np.ascontiguousarray(np.broadcast_to(numbers, (count, atoms))).reshape(-1),
        columns={
            **of_graphs,
            **{name: values.reshape(count * atoms, *values.shape[2:]) for name, values in of_nodes.items()},
        },
        cell=None if cell is None else np.array(np.broadcast_to(cell, (count, 3, 3))),
        pbc=None if pbc is None else np.array(np.broadcast_to(pbc, (count, 3))),
    )


def atomic_numbers(values: Array, where: str) -> Array:
    """Convert integers or symbols to atomic numbers, as uint8.

    Raises:
        DataError: a value is not an element.
    """
    from ase.data import atomic_numbers as symbols

    if values.dtype.kind in "SUO":
        words = [
            word.decode("ascii", "replace") if isinstance(word, bytes) else str(word) for word in values.reshape(-1)
        ]
        values = np.array([symbols.get(word.strip().capitalize(), 0) for word in words]).reshape(values.shape)
    if values.dtype.kind not in "uif" or np.any(values != np.floor(values)) or np.any((values < 1) | (values > 118)):
        raise DataError(f"{where}: atomic numbers must be integers from 1 to 118, or symbols of elements.")
    return values.astype(np.uint8)
