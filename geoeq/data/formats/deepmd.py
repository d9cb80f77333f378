"""Folders of DeePMD-kit: type.raw, type_map.raw, and set.000/{coord,box,energy,force,virial}.npy."""

from __future__ import annotations

import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from geoeq.data.containers.unpack import is_archive, unpacked_folder
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Survey, choose_keys, column_of, columns
from geoeq.data.formats.uniform import atomic_numbers, slices, uniform
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.documents import read_text
from geoeq.errors import DataError
from geoeq.fields import FIELDS
from geoeq.files import check_regular

__all__ = ["DeepMDReader", "find_systems"]

_PARTS = ("coord", "box", "real_atom_types")


@dataclass(frozen=True)
class _Set:
    """One set.* folder of a system of n atoms.

    Attributes:
        arrays: name -> memory map, [G, ..].
        types: [n], or [G, n] with -1 for padding.
        elements: [T], atomic numbers of the types.
        periodic: whether it has a box.
        where: the folder, for messages.
    """

    arrays: Mapping[str, Array]
    types: Array
    elements: Array
    periodic: bool
    where: str

    @property
    def count(self) -> int:
        return len(self.arrays["coord"])


class DeepMDReader(KeyedReader):
    """Reader of folders of DeePMD-kit in eV and Å: one system, or many at any depth, in the order of their names.

    A virial is converted to the stress, -virial / volume. Systems without a box (``nopbc``) and of mixed types
    (``real_atom_types.npy``) are supported.

    Args:
        keys: field (or virial) -> name of the npy file, or null to skip the quantity; see ``KeyedReader``.
        length: unit of positions and boxes.
        order: order of the six components of a stress or virial; files of DeePMD-kit have nine.
        type_map: elements of the types 0, 1, .., if there is no type_map.raw.
        folder: folder to read if the files are archives.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        keys: Mapping[str, str | None] | None = None,
        length: str | None = None,
        order: str = "ase",
        type_map: list[str] | None = None,
        folder: str | None = None,
    ) -> None:
        super().__init__(keys, length, order)
        self.type_map = type_map
        self.folder = folder

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Count the frames and the arrays of all systems."""
        graphs, nodes, counts = Counter[str](), Counter[str](), dict.fromkeys(files, 0)
        self._periodic = False
        for file, path in files.items():
            with self._opened(path) as folder:
                for one in self._sets(folder):
                    counts[file] += one.count
                    self._periodic |= one.periodic
                    atoms = one.types.shape[-1]
                    for name in one.arrays.keys() - {*_PARTS}:
                        size = one.arrays[name].size // one.count
                        graphs[name] += one.count
                        nodes[name] += one.count if size % atoms == 0 else 0
        where, total = ", ".join(map(str, files.values())), sum(counts.values())
        if not total:
            raise DataError(
                f"{where}: it is not a folder of DeePMD-kit: nothing below it has a type.raw and set.*/coord.npy."
            )
        keys, notes = choose_keys(self.keys, graphs, nodes, total, where)
        units = {column_of(name): FIELDS[column_of(name)].unit for name in keys}
        return Survey(keys, units, counts, notes)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the frames of all systems, in chunks.

        Raises:
            DataError: a file is missing, truncated or altered, or does not match the others; the message names it.
        """
        survey = self.survey(files)
        for path in files.values():
            with self._opened(path) as folder:
                for one in self._sets(folder):
                    for part in slices(one.count, one.types.shape[-1]):
                        yield self._records(one, part, survey)

    def _records(self, one: _Set, part: slice, survey: Survey) -> Records:
        positions = np.asarray(one.arrays["coord"][part], dtype=np.float64)
        count = len(positions)
        positions = positions.reshape(count, -1, 3) * self.scale
        atoms = positions.shape[1]
        types = one.types[part] if one.types.ndim == 2 else one.types
        box = np.zeros((count, 3, 3))
        if one.periodic:
            box = np.asarray(one.arrays["box"][part], dtype=np.float64).reshape(count, 3, 3) * self.scale
        values = {key.name: one.arrays[key.name][part] for key in survey.keys.values()}
        of_graphs, of_nodes = columns(survey.keys, values, (count,), (count, atoms), box, one.where, self.order)
        is_atom = np.broadcast_to(types >= 0, (count, atoms))
        numbers = np.broadcast_to(one.elements[types], (count, atoms))
        cell, pbc = (box, np.full((count, 3), one.periodic)) if self._periodic else (None, None)
        if is_atom.all():
            return uniform(numbers, positions, of_graphs, of_nodes, cell, pbc)
        return Records(
            positions=positions[is_atom],
            ptr=np.concatenate([[0], np.cumsum(is_atom.sum(1))]),
            numbers=numbers[is_atom],
            columns={**of_graphs, **{name: array[is_atom] for name, array in of_nodes.items()}},
            cell=cell,
            pbc=pbc,
        )

    @contextmanager
    def _opened(self, path: Path) -> Iterator[Path]:
        if path.is_file() and is_archive(path):
            with unpacked_folder(path, self.folder or "") as folder:
                yield folder
        else:
            yield path

    def _sets(self, folder: Path) -> Iterator[_Set]:
        for system in find_systems(folder):
            types = _numbers_in(system / "type.raw")
            elements = self._elements(system)
            nopbc = (system / "nopbc").is_file()
            for folder in sorted(system.glob("set.*")):
                yield _read_set(folder, types, elements, nopbc)

    def _elements(self, system: Path) -> Array:
        """Return the atomic numbers of the types."""
        path = system / "type_map.raw"
        if self.type_map is not None:
            words = self.type_map
        elif path.is_file():
            words = read_text(path).split()
        else:
            raise DataError(
                f"{path}: it is missing, so that the elements of the types are unknown. Specify them by the option "
                "'type_map', as in [O, H]."
            )
        return atomic_numbers(np.array(words), str(path))


def find_systems(folder: str | Path) -> list[Path]:
    """Return the folders with a type.raw: ``folder`` itself, or those below it."""
    folder = Path(folder)
    return [path.parent for path in sorted(folder.rglob("type.raw")) if any(path.parent.glob("set.*"))]


def _read_set(folder: Path, types: Array, elements: Array, nopbc: bool) -> _Set:
    arrays = {path.stem: _load(path) for path in sorted(folder.glob("*.npy"))}
    if "coord" not in arrays:
        raise DataError(f"{folder / 'coord.npy'}: it is missing.")
    coord = arrays["coord"]
    count, atoms = (len(coord) if coord.ndim else 0), len(types)
    if count == 0 or coord.size != count * atoms * 3:
        raise DataError(f"{folder / 'coord.npy'}: its shape is {coord.shape} instead of (frames, {atoms * 3}).")
    for name, array in arrays.items():
        if array.shape[:1] != (count,):
            raise DataError(f"{folder / name}.npy: its shape is {array.shape}, but there are {count} frames.")
    if "real_atom_types" in arrays:
        types = np.asarray(arrays["real_atom_types"]).astype(np.int64)
        if types.shape != (count, atoms):
            raise DataError(
                f"{folder / 'real_atom_types.npy'}: its shape is {types.shape} instead of ({count}, {atoms})."
            )
    elif types.min() < 0:
        raise DataError(f"{folder.parent / 'type.raw'}: it contains the type {types.min()}.")
    if types.max() >= len(elements):
        raise DataError(f"{folder}: it contains the type {types.max()}, but there are only {len(elements)} elements.")
    if not nopbc and "box" not in arrays:
        raise DataError(f"{folder / 'box.npy'}: it is missing. A system without cells needs a file 'nopbc'.")
    if not nopbc and arrays["box"].size != count * 9:
        raise DataError(f"{folder / 'box.npy'}: its shape is {arrays['box'].shape} instead of ({count}, 9).")
    return _Set(arrays, types, elements, not nopbc, str(folder))


def _load(path: Path) -> Array:
    check_regular(path)
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, OSError, OverflowError, SyntaxError, TypeError, ValueError, tokenize.TokenError) as error:
        raise DataError(f"{path}: it is truncated or altered ({error}).") from error
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: it does not contain numbers.")
    return array


def _numbers_in(path: Path) -> Array:
    words = read_text(path).split()
    try:
        types = np.array(words, dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: it must contain the types of the atoms as integers: {error}.") from error
    if not len(types):
        raise DataError(f"{path}: it is empty.")
    return types
