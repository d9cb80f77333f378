"""npz files of trajectories: positions [G, n, 3] and what belongs to them, as MD17, rMD17, MD22 and sGDML have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import numpy as np

from geoeq.data.containers.unpack import unpacked
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.npz_arrays import NpzArrays
from geoeq.data.formats.quantities import Survey, choose, columns
from geoeq.data.formats.uniform import atomic_numbers, pieces, uniform
from geoeq.data.formats.unit_names import in_our_words, units_of
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError
from geoeq.units import conversion

__all__ = ["NpzReader"]

#: What a structure is made of -> the names under which it is looked for.
_STRUCTURE = {
    "positions": ("R", "coords", "coordinates", "positions", "pos"),
    "numbers": ("z", "Z", "nuclear_charges", "numbers", "atomic_numbers"),
    "cell": ("cell", "lattice"),
    "pbc": ("pbc",),
}
_UNITS = {"length": "r_unit", "energy": "e_unit"}


class NpzReader(KeyedReader):
    """Reads npz files with positions [G, n, 3], atomic numbers [n] or [G, n], and perhaps a cell [3, 3] or [G, 3, 3].

    The units are those that the file says in ``r_unit`` and ``e_unit``. Where it says none, the length must be told,
    and the card says the others.

    Args:
        keys: field (or virial) -> array, null for what is not to be read; see ``KeyedReader``.
        length: unit of positions and cells, where the file says none.
        order: of six components of a stress or virial.
        structure: "positions", "numbers", "cell" or "pbc" -> array, where it has none of the common names.
        member: the npz file to take, where the files are archives (zip, tar) of several.
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
        self.told_length, self.member = length, member
        self.structure = dict(structure or {})
        if not {*self.structure} <= {*_STRUCTURE}:
            raise ValueError(f"structure: known are {', '.join(_STRUCTURE)}, not {', '.join(self.structure)}.")

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Names, shapes and units of the arrays."""
        surveys = [self._look(path) for path in files.values()]
        first = surveys[0]
        for path, other in zip(files.values(), surveys):
            if (other.keys, other.units) != (first.keys, first.units):
                raise DataError(f"{path}: it has other arrays or units than the first file.")
        counts = {file: sum(survey.counts.values()) for file, survey in zip(files, surveys)}
        return Survey(first.keys, first.units, counts, first.notes)

    def _look(self, path: Path) -> Survey:
        with unpacked(path, self.member) as plain, NpzArrays(plain, str(path)) as arrays:
            count, atoms = self._extent(arrays)
            rows = {name: arrays.shapes[name] for name in arrays.shapes if name not in self._places(arrays).values()}
            graphs = {name: count for name, shape in rows.items() if shape[:1] == (count,)}
            nodes = {name: count for name, shape in rows.items() if shape[:2] == (count, atoms)}
            keys, notes = choose(self.keys, graphs, nodes, count, str(path))
            words = {what: arrays.text(name) for what, name in _UNITS.items() if name in arrays.shapes}
            units = {} if "energy" not in words else units_of(keys, words["energy"], self._length(arrays), str(path))
            return Survey(keys, units, {path.name: count}, notes)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """The structures of all files, in their order.

        Raises:
            DataError: a file is truncated or altered, holds Python objects, lacks an array or a unit, or an array has
                not the shape that it should have.
        """
        survey = self.survey(files)
        for path in files.values():
            with unpacked(path, self.member) as plain, NpzArrays(plain, str(path)) as arrays:
                yield from self._chunks(arrays, survey)

    def _chunks(self, arrays: NpzArrays, survey: Survey) -> Iterator[Records]:
        where, places, (count, atoms) = arrays.where, self._places(arrays), self._extent(arrays)
        scale = conversion(self._length(arrays), "Å")
        numbers = atomic_numbers(arrays.whole(places["numbers"]), where)
        if numbers.shape not in ((atoms,), (count, atoms)):
            raise DataError(
                f"{where}: '{places['numbers']}' is {numbers.shape}; ({atoms},) or ({count}, {atoms}) is right."
            )
        cell, pbc = self._cell(arrays, places, count, scale)
        parts = list(pieces(count, atoms))
        names = {places["positions"], *(key.name for key in survey.keys.values())}
        with ExitStack() as stack:
            streams = {name: arrays.blocks(name, parts, stack) for name in names}
            for part in parts:
                values = {name: next(stream) for name, stream in streams.items()}
                positions = np.asarray(values[places["positions"]], dtype=np.float64) * scale
                size = len(positions)
                of_part = cell[part] if cell is not None and cell.ndim == 3 else cell
                found = columns(survey.keys, values, (size,), (size, atoms), of_part, where, self.order)
                yield uniform(numbers[part] if numbers.ndim == 2 else numbers, positions, *found, of_part, pbc)
            for stream in streams.values():
                next(stream, None)  # to the end, where the checksum is

    def _cell(
        self, arrays: NpzArrays, places: Mapping[str, str], count: int, scale: float
    ) -> tuple[Array | None, Array | None]:
        if "cell" not in places:
            return None, None
        cell = np.asarray(arrays.whole(places["cell"]), dtype=np.float64) * scale
        if cell.shape not in ((3, 3), (count, 3, 3)):
            raise DataError(
                f"{arrays.where}: '{places['cell']}' is {cell.shape}; (3, 3) or ({count}, 3, 3) would be right."
            )
        pbc = arrays.whole(places["pbc"]).astype(bool) if "pbc" in places else np.array([True] * 3)
        if pbc.shape != (3,):
            raise DataError(f"{arrays.where}: '{places['pbc']}' is {pbc.shape}; (3,) would be right.")
        return cell, pbc

    def _places(self, arrays: NpzArrays) -> dict[str, str]:
        """Part of a structure -> array."""
        places = dict(self.structure)
        for part, names in _STRUCTURE.items():
            if part in places:
                continue
            found = [name for name in names if name in arrays.shapes]
            if len(found) > 1:
                raise DataError(
                    f"{arrays.where}: {part} may be any of {', '.join(found)}. Say which in a card, as in "
                    f"'options: {{structure: {{{part}: {found[0]}}}}}'."
                )
            if found:
                places[part] = found[0]
        for part in places.keys() | {"positions", "numbers"}:
            if places.get(part) not in arrays.shapes:
                raise DataError(f"{arrays.where}: it has no {part}; its arrays are {', '.join(sorted(arrays.shapes))}.")
        return places

    def _extent(self, arrays: NpzArrays) -> tuple[int, int]:
        name = self._places(arrays)["positions"]
        shape = arrays.shapes[name]
        if len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise DataError(f"{arrays.where}: '{name}' is {shape}; (structures, atoms, 3) would be right.")
        return shape[0], shape[1]

    def _length(self, arrays: NpzArrays) -> str:
        if self.told_length is not None:
            return self.told_length
        if _UNITS["length"] not in arrays.shapes:
            raise DataError(
                f"{arrays.where}: it does not say its units. Say them in a card, as in 'options: {{length: Å}}' and "
                "'targets: {energy: {column: energy, unit: kcal/mol, report: meV}, ..}'."
            )
        return in_our_words(arrays.text(_UNITS["length"]))
