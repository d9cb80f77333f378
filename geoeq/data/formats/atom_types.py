"""Atoms that a file numbers instead of naming them: types of LAMMPS are not atomic numbers, as which ASE takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["LammpsFile", "check_types", "is_lammps_data", "numbers_of_symbols", "numbers_of_types"]

#: Lines at the head of a data file, and the number of lines in which they are looked for.
_DATA, _HEAD = re.compile(r"\s*\S+\s+\S+\s+xlo\s+xhi\b"), 60

#: Units that ASE converts; the first is the default of ASE, and of files that state none.
_UNITS = ("metal", "real", "electron", "si", "cgs", "micro", "nano")

#: Columns of a dump from which ASE finds the elements.
_ELEMENTS = {"element", "mass"}

_REMEDY = (
    "these may be types or atomic numbers. Write the symbols of the elements, or name them in a card, as in 'options: "
    "{types: {1: Si, 2: O}}'"
)


def check_types(types: Mapping[object, str] | None) -> dict[int, int]:
    """Return type -> atomic number for a type map of a card.

    Raises:
        ValueError: a type is not a number, or a symbol is not an element.
    """
    from ase.data import atomic_numbers

    checked: dict[int, int] = {}
    for kind, symbol in (types or {}).items():
        if not str(kind).isdecimal():
            raise ValueError(f"types: a type must be a number, not {kind!r}.")
        if atomic_numbers.get(str(symbol), 0) < 1:
            raise ValueError(f"types: there is no element {symbol!r} (type {kind}).")
        checked[int(str(kind))] = atomic_numbers[str(symbol)]
    return checked


def numbers_of_symbols(words: Sequence[str], types: Mapping[int, int], where: str) -> Array:
    """Return the atomic numbers of symbols, or of types by their map.

    Raises:
        DataError: a symbol is not an element, or atoms have types without a map.
    """
    from ase.data import atomic_numbers

    known = {word: atomic_numbers.get(word.capitalize(), 0) for word in {*words}}
    numbered = [word for word in known if word.isdecimal() and len(word) < 10]
    if numbered:
        kinds = numbers_of_types(np.array([int(word) for word in numbered]), types, where)
        known |= dict(zip(numbered, kinds.tolist()))
    for word, number in known.items():
        if number < 1:
            raise DataError(f"{where} cannot be read: there is no element '{word[:40]}'.")
    return np.array([known[word] for word in words], dtype=np.uint8)


def numbers_of_types(kinds: Array, types: Mapping[int, int], where: str) -> Array:
    """Return the atomic numbers of types.

    Raises:
        DataError: there is no map, or it lacks a type.
    """
    present = np.unique(kinds).tolist()
    lacking = [kind for kind in present if kind not in types]
    if lacking and not types:
        shown = ", ".join(map(str, present[:10]))
        raise DataError(f"{where} cannot be read: instead of elements it has the numbers {shown}; {_REMEDY}.")
    if lacking:
        raise DataError(f"{where} cannot be read: the option 'types' has no element for the type {lacking[0]}.")
    return np.array([types[kind] for kind in kinds.tolist()], dtype=np.uint8)


def is_lammps_data(path: Path) -> bool:
    """Return whether a text file has the head of a data file of LAMMPS, whatever its name."""
    return any(_DATA.match(line) for line in islice(_lines(path), _HEAD))


class LammpsFile:
    """What a file of LAMMPS says about units and elements.

    Args:
        path: path of the file.
        kind: ASE's name of the format.
        types: type -> atomic number.

    Attributes:
        options: arguments of ASE's reader.

    Raises:
        DataError: the units are unknown or have no scale, or a data file has types without masses or a map.
    """

    def __init__(self, path: Path, kind: str, types: Mapping[int, int]) -> None:
        self.types = types
        self.is_numbered = kind.startswith("lammps-dump")
        units, has_masses = "metal", False
        lines = _lines(path)
        for number, line in enumerate(lines):
            if line.startswith("ITEM: UNITS"):
                units = next(lines, "").strip()
            elif line.startswith("ITEM: ATOMS"):
                self.is_numbered = not _ELEMENTS & {*line.split()}
                break
            elif kind == "lammps-data" and number == 0:
                match = re.search(r"units\s*=\s*(\w+)", line)
                units = match[1] if match else units
            elif line.split("#")[0].strip() == "Masses":
                has_masses = True
        if units not in _UNITS:
            raise DataError(f"{path}: its units are '{units}' of LAMMPS, which cannot be converted to Å.")
        self.options: dict[str, Any] = {"units": units}
        if kind == "lammps-data" and types:
            self.options["Z_of_type"] = dict(types)
        elif kind == "lammps-data" and not has_masses:
            raise DataError(
                f"{path}: a data file of LAMMPS without the section Masses does not tell the elements of its types. "
                "Add the masses, or name the elements in a card, as in 'options: {types: {1: Si, 2: O}}'."
            )

    def set_elements(self, atoms: Any, where: str) -> None:
        """Replace the types, which ASE took for atomic numbers.

        Raises:
            DataError: there is no map, or it lacks a type.
        """
        if self.is_numbered:
            atoms.numbers = numbers_of_types(atoms.arrays.get("type", atoms.numbers), self.types, where)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(1 << 16):
            yield line
