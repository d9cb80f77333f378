"""Dumps and data files of LAMMPS: their units, and the elements of their types, which ASE takes for atomic numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from geoeq.data.formats.type_map import numbers_of_types
from geoeq.errors import DataError

__all__ = ["LammpsFile", "is_lammps_data"]

#: Lines at the head of a data file, and the number of lines in which they are looked for.
_DATA, _HEAD = re.compile(r"\s*\S+\s+\S+\s+xlo\s+xhi\b"), 60

#: Units that ASE converts; the first is the default of ASE, and of files that state none.
_UNITS = ("metal", "real", "electron", "si", "cgs", "micro", "nano")

#: Columns of a dump from which ASE finds the elements.
_ELEMENTS = {"element", "mass"}


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
