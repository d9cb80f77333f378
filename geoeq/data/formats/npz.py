"""npz files of trajectories with positions [G, n, 3] and labels, such as MD17, rMD17, MD22 and those of sGDML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import numpy as np

from geoeq.data.containers.unpack import unpacked
from geoeq.data.formats.keyed import KeyedReader, units_of
from geoeq.data.formats.npz_arrays import NpzArrays
from geoeq.data.formats.quantities import Survey, choose_keys, columns
from geoeq.data.formats.stated_units import normalize_unit
from geoeq.data.formats.uniform import atomic_numbers, slices, uniform
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError
from geoeq.units import conversion

__all__ = ["NpzReader"]

#: Part of a structure -> common names of its array.
_STRUCTURE = {
    "positions": ("R", "coords", "coordinates", "positions", "pos"),
    "numbers": ("z", "Z", "nuclear_charges", "numbers", "atomic_numbers"),
    "cell": ("cell", "lattice"),
    "pbc": ("pbc",),
}
_UNITS = {"length": "r_unit", "energy": "e_unit"}


class NpzReader(KeyedReader):
    """Reader of npz files with positions [G, n, 3], atomic numbers [n] or [G, n], and maybe a cell [3, 3] or [G, 3, 3].

    The file may state its units in ``r_unit`` and ``e_unit``. Otherwise the unit of length must be specified, and the
    card states the others.

    Args:
        keys: field (or virial) -> array, or null to skip the quantity; see ``KeyedReader``.
        length: unit of positions and cells, if the file does not state it.
        order: order of the six components of a stress or virial.
        structure: "positions", "numbers", "cell" or "pbc" -> array, if it has none of the common names.
        member: name of the npz file to read if the files are archives (zip, tar).
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        keys: Mapping[str, str | None] | None = None,
        length: str | None = None,
        order: str = "ase",
        structure: Mapping[str, str] | None = None,
        member: str | None = None,
    ) -> None:
        super().__init__(keys, length, order)
        self.specified_length, self.member = length, member
        self.structure = dict(structure or {})
        if not {*self.structure} <= {*_STRUCTURE}:
            raise ValueError(f"structure: its keys may be {', '.join(_STRUCTURE)}, not {', '.join(self.structure)}.")

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Collect names, shapes and units of the arrays."""
        surveys = [self._look(path) for path in files.values()]
        first = surveys[0]
        for path, other in zip(files.values(), surveys):
            if (other.keys, other.units) != (first.keys, first.units):
                raise DataError(f"{path}: it has other arrays or units than the first file.")
        counts = {file: sum(survey.counts.values()) for file, survey in zip(files, surveys)}
        return Survey(first.keys, first.units, counts, first.notes, stated=first.stated)

    def _look(self, path: Path) -> Survey:
        with unpacked(path, self.member) as plain, NpzArrays(plain, str(path)) as arrays:
            count, atoms = self._extent(arrays)
            rows = {name: arrays.shapes[name] for name in arrays.shapes if name not in self._structure(arrays).values()}
            graphs = {name: count for name, shape in rows.items() if shape[:1] == (count,)}
            nodes = {name: count for name, shape in rows.items() if shape[:2] == (count, atoms)}
            keys, notes = choose_keys(self.keys, graphs, nodes, count, str(path))
            words = {kind: arrays.text(name) for kind, name in _UNITS.items() if name in arrays.shapes}
            units = {} if "energy" not in words else units_of(keys, words["energy"], self._length(arrays), str(path))
            return Survey(keys, units, {path.name: count}, notes, stated=units)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures of all files, in order.

        Raises:
            DataError: a file is truncated or altered, contains Python objects, lacks an array or a unit, or an array
                has the wrong shape.
        """
        survey = self.survey(files)
        for path in files.values():
            with unpacked(path, self.member) as plain, NpzArrays(plain, str(path)) as arrays:
                yield from self._chunks(arrays, survey)

    def _chunks(self, arrays: NpzArrays, survey: Survey) -> Iterator[Records]:
        where, structure, (count, atoms) = arrays.where, self._structure(arrays), self._extent(arrays)
        scale = conversion(self._length(arrays), "Å")
        numbers = atomic_numbers(arrays.whole(structure["numbers"]), where)
        if numbers.shape not in ((atoms,), (count, atoms)):
            raise DataError(
                f"{where}: the shape of '{structure['numbers']}' is {numbers.shape} instead of ({atoms},) or "
                f"({count}, {atoms})."
            )
        cell, pbc = self._cell(arrays, structure, count, scale)
        parts = list(slices(count, atoms))
        names = {structure["positions"], *(key.name for key in survey.keys.values())}
        with ExitStack() as stack:
            streams = {name: arrays.blocks(name, parts, stack) for name in names}
            for part in parts:
                values = {name: next(stream) for name, stream in streams.items()}
                positions = np.asarray(values[structure["positions"]], dtype=np.float64) * scale
                size = len(positions)
                of_part = cell[part] if cell is not None and cell.ndim == 3 else cell
                quantities = columns(survey.keys, values, (size,), (size, atoms), of_part, where, self.order)
                yield uniform(numbers[part] if numbers.ndim == 2 else numbers, positions, *quantities, of_part, pbc)
            for stream in streams.values():
                next(stream, None)  # read to the end, where the checksum is

    def _cell(
        self, arrays: NpzArrays, structure: Mapping[str, str], count: int, scale: float
    ) -> tuple[Array | None, Array | None]:
        if "cell" not in structure:
            return None, None
        cell = np.asarray(arrays.whole(structure["cell"]), dtype=np.float64) * scale
        if cell.shape not in ((3, 3), (count, 3, 3)):
            raise DataError(
                f"{arrays.where}: the shape of '{structure['cell']}' is {cell.shape} instead of (3, 3) or "
                f"({count}, 3, 3)."
            )
        pbc = arrays.whole(structure["pbc"]).astype(bool) if "pbc" in structure else np.array([True] * 3)
        if pbc.shape != (3,):
            raise DataError(f"{arrays.where}: the shape of '{structure['pbc']}' is {pbc.shape} instead of (3,).")
        return cell, pbc

    def _structure(self, arrays: NpzArrays) -> dict[str, str]:
        """Return part of a structure -> array."""
        structure = dict(self.structure)
        for part, names in _STRUCTURE.items():
            if part in structure:
                continue
            matches = [name for name in names if name in arrays.shapes]
            if len(matches) > 1:
                raise DataError(
                    f"{arrays.where}: {part} may be any of {', '.join(matches)}. Choose one in a card, as in "
                    f"'options: {{structure: {{{part}: {matches[0]}}}}}'."
                )
            if matches:
                structure[part] = matches[0]
        for part in structure.keys() | {"positions", "numbers"}:
            if structure.get(part) not in arrays.shapes:
                raise DataError(f"{arrays.where}: it has no {part}; its arrays are {', '.join(sorted(arrays.shapes))}.")
        return structure

    def _extent(self, arrays: NpzArrays) -> tuple[int, int]:
        name = self._structure(arrays)["positions"]
        shape = arrays.shapes[name]
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise DataError(f"{arrays.where}: the shape of '{name}' is {shape} instead of (structures, atoms, 3).")
        return shape[0], shape[1]

    def _length(self, arrays: NpzArrays) -> str:
        if self.specified_length is not None:
            return self.specified_length
        if _UNITS["length"] not in arrays.shapes:
            raise DataError(
                f"{arrays.where}: it does not state its units. Specify them in a card: 'options: {{length: Å}}' and "
                "'targets: {energy: {column: energy, unit: kcal/mol, report: meV}, ..}'."
            )
        return normalize_unit(arrays.text(_UNITS["length"]))
