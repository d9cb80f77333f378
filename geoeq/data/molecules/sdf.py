"""Read the atoms of the molecules in an SDF file (V2000) without RDKit; bonds are not read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["SdfMolecule", "read_sdf"]


class SdfMolecule(NamedTuple):
    """Title line, atomic numbers [n] and positions [n, 3] Å of one molecule."""

    title: str
    numbers: Array
    positions: Array


def read_sdf(lines: Iterable[str], where: str) -> Iterator[SdfMolecule]:
    """Yield the molecules in the text of an SDF file.

    Raises:
        DataError: the text is truncated or not V2000; the message gives the molecule, counted from 1.
    """
    block: list[str] = []
    count = 0
    for line in lines:
        if line.startswith("$$$$"):
            count += 1
            yield _molecule(block, f"{where}: molecule {count}")
            block = []
        else:
            block.append(line)
    if any(line.strip() for line in block):
        if count:
            raise DataError(f"{where}: molecule {count + 1} is truncated: its last line must be '$$$$'.")
        yield _molecule(block, where)  # a mol file, which has one molecule and no such line


def _molecule(block: list[str], where: str) -> SdfMolecule:
    from ase.data import atomic_numbers

    try:
        counts = block[3]
        if "V3000" in counts:
            raise DataError(f"{where}: its version V3000 is not supported, only V2000.")
        atoms = block[4 : 4 + int(counts[:3])]
        numbers = [atomic_numbers[line[31:34].strip()] for line in atoms]
        positions = [(float(line[:10]), float(line[10:20]), float(line[20:30])) for line in atoms]
    except (IndexError, ValueError, KeyError) as error:
        raise DataError(f"{where}: it is truncated or not an SDF file of version V2000 ({error!r}).") from error
    if not atoms or len(atoms) < int(counts[:3]):
        raise DataError(f"{where}: it has {len(atoms)} lines of atoms; the counts line says {counts[:3].strip()}.")
    return SdfMolecule(block[0].strip(), np.array(numbers, dtype=np.uint8), np.array(positions))
