"""Read the molecules in an SDF file (V2000) without RDKit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from geoeq.data.containers.text_numbers import to_float
from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["SdfMolecule", "read_sdf"]

#: Charges by their code in a line of an atom; 4 is a radical.
_CHARGES = {1: 3, 2: 2, 3: 1, 5: -1, 6: -2, 7: -3}

#: Unpaired or free electrons by their code in a line ``M  RAD``: singlet, doublet, triplet.
_RADICALS = {1: 2, 2: 1, 3: 2}

_AROMATIC = 4


class SdfMolecule(NamedTuple):
    """One molecule of n atoms.

    Attributes:
        title: first line.
        numbers: [n] atomic numbers.
        positions: [n, 3] Å.
        charges: [n] formal charges, e.
        radicals: [n] unpaired electrons, or free pairs counted as two.
        masses: atom -> mass number of an isotope.
        bonds: [b, 2] indices of bonded atoms.
        orders: [b] orders of the bonds; 1.5 if aromatic.
        is_drawing: whether the second line says "2D".
        text: the molecule as it is in the file.
    """

    title: str
    numbers: Array
    positions: Array
    charges: Array
    radicals: Array
    masses: dict[int, int]
    bonds: Array
    orders: Array
    is_drawing: bool
    text: str


def read_sdf(lines: Iterable[str], where: str) -> Iterator[SdfMolecule]:
    """Yield the molecules in the text of an SDF file.

    Raises:
        DataError: the text is truncated or not V2000, or an atom is not an element; the message gives the molecule,
            counted from 1.
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
    try:
        counts = block[3]
        if "V3000" in counts:
            raise DataError(f"{where}: its version V3000 is not supported, only V2000.")
        count, of_bonds = int(counts[:3]), int(counts[3:6])
        atoms, bonds = block[4 : 4 + count], block[4 + count : 4 + count + of_bonds]
        numbers = [_element(line[31:34].strip(), f"{where}, atom {atom}") for atom, line in enumerate(atoms, 1)]
        positions = [[to_float(line[start : start + 10]) for start in (0, 10, 20)] for line in atoms]
        charges = [_CHARGES.get(int(line[36:39].strip() or 0), 0) for line in atoms]
        ends = [(int(line[:3]) - 1, int(line[3:6]) - 1) for line in bonds]
        kinds = [int(line[6:9]) for line in bonds]
        properties = _properties(block[4 + count + of_bonds :])
    except (IndexError, ValueError) as error:
        raise DataError(f"{where}: it is truncated or not an SDF file of version V2000 ({error!r}).") from error
    if not atoms or len(atoms) < count:
        raise DataError(f"{where}: it has {len(atoms)} lines of atoms; the counts line says {counts[:3].strip()}.")
    named = [atom for pair in ends for atom in pair] + [atom for values in properties.values() for atom in values]
    if any(not 0 <= atom < count for atom in named):
        raise DataError(f"{where}: a bond or property names an atom that does not exist; there are {count}.")
    if "CHG" in properties or "RAD" in properties:  # these lines replace the charges in the lines of atoms
        charges = [properties.get("CHG", {}).get(atom, 0) for atom in range(count)]
    return SdfMolecule(
        title=block[0].strip(),
        numbers=np.array(numbers, dtype=np.uint8),
        positions=np.array(positions),
        charges=np.array(charges),
        radicals=np.array([_RADICALS.get(properties.get("RAD", {}).get(atom, 0), 0) for atom in range(count)]),
        masses=properties.get("ISO", {}),
        bonds=np.array(ends, dtype=np.int64).reshape(-1, 2),
        orders=np.array([1.5 if kind == _AROMATIC else min(kind, 3) for kind in kinds]),
        is_drawing=block[1][20:22].upper() == "2D" or "2D" in block[1].upper().split(),
        text="\n".join(block),
    )


def _element(symbol: str, where: str) -> int:
    from ase.data import atomic_numbers

    if symbol in ("D", "T"):
        raise DataError(f"{where} is {symbol}: write H, and its mass in a line 'M  ISO'.")
    if atomic_numbers.get(symbol, 0) < 1:
        kind = "a placeholder" if symbol in ("*", "A", "Q", "L", "LP") or symbol.startswith("R") else "not an element"
        raise DataError(f"{where} is '{symbol}', which is {kind}: a geometry needs an element for each atom.")
    return atomic_numbers[symbol]


def _properties(lines: list[str]) -> dict[str, dict[int, int]]:
    """Return "CHG", "RAD" or "ISO" -> atom, counted from 0 -> value."""
    found: dict[str, dict[int, int]] = {}
    for line in lines:
        if line.startswith("M  END"):
            break
        if line[:6] in ("M  CHG", "M  RAD", "M  ISO"):
            words = [int(word) for word in line[6:].split()]
            if len(words) != 1 + 2 * words[0]:
                raise ValueError(f"'{line.strip()}' does not have {words[0]} pairs")
            found.setdefault(line[3:6], {}).update({atom - 1: value for atom, value in zip(words[1::2], words[2::2])})
    return found
