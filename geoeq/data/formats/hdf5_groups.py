"""The groups of an HDF5 file that are molecules; links to other files are not followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from geoeq.data.containers.unpack import unpacked
from geoeq.data.ragged import Array
from geoeq.errors import DataError
from geoeq.resources import import_extra

__all__ = ["Molecule", "Names", "molecules", "opened"]

#: Largest depth of nested groups; a deeper file contains a cycle.
_DEPTH = 8

#: The arrays of a file may have this many bytes plus this many times its size: an array without stored values is a
#: file of 2000 bytes with any number of structures.
_FREE_BYTES, _RATIO = 1 << 26, 100

#: Errors of h5py when a file is truncated or altered.
_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError)


class Names(Protocol):
    """Names of the arrays of a molecule; ``keys`` are those of its labels."""

    @property
    def numbers(self) -> str: ...
    @property
    def positions(self) -> str: ...
    @property
    def keys(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Molecule:
    """A group with G structures of n atoms each.

    Attributes:
        layout: name of its layout.
        count: number G of structures.
        atoms: number n of atoms.
        shapes: array of numbers -> shape, with G in front.
        single: whether the group has one structure and its arrays lack the dimension G.
        where: file and group, for messages.
    """

    layout: str
    count: int
    atoms: int
    shapes: Mapping[str, tuple[int, ...]]
    single: bool
    where: str
    _group: Any

    def rows(self, name: str, part: slice) -> Array:
        """Read the rows of an array that belong to some structures.

        Raises:
            DataError: the rows cannot be read.
        """
        try:
            values: Array = self._group[name][()][None] if self.single else self._group[name][part]
        except _ERRORS as error:
            raise DataError(f"{self.where}/{name}: it is truncated or altered ({error}).") from error
        return values

    def whole(self, name: str) -> Array:
        """Read a whole array.

        Raises:
            DataError: the array cannot be read.
        """
        try:
            values: Array = self._group[name][()]
        except _ERRORS as error:
            raise DataError(f"{self.where}/{name}: it is truncated or altered ({error}).") from error
        return values


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open the HDF5 file ``path``, which may be compressed (gz, bz2, xz), and yield its root.

    Raises:
        DataError: the file is truncated, altered or not an HDF5 file.
        MissingExtraError: h5py is not installed.
    """
    h5py = import_extra("h5py", "hdf5")
    with unpacked(path) as plain:
        try:
            file = h5py.File(plain, "r")
        except _ERRORS as error:
            raise DataError(f"{path}: it is truncated, altered or not an HDF5 file ({error}).") from error
        with file:
            yield file


def molecules(group: Any, layouts: Mapping[str, Names], where: str, depth: int = 0) -> Iterator[Molecule]:
    """Yield the molecules in a group and in the groups below it, in the order of their names.

    Raises:
        DataError: the file is truncated or altered, contains a link, or the arrays of a molecule do not match.
    """
    if depth > _DEPTH:
        raise DataError(f"{where}: groups are nested more than {_DEPTH} deep, which is not supported.")
    arrays, groups = _members(group, where)
    matching = [name for name, names in layouts.items() if names.numbers in arrays and names.positions in arrays]
    if matching:
        layout = max(matching, key=lambda name: sum(key.lstrip("-") in arrays for key in layouts[name].keys.values()))
        yield _molecule(group, arrays, layout, layouts[layout], where)
        return
    for name in groups:
        yield from molecules(_get(group, name, where), layouts, f"{where}/{name}", depth + 1)


def _members(group: Any, where: str) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Return array of numbers -> shape, and the names of the groups."""
    h5py = import_extra("h5py", "hdf5")
    arrays, groups = {}, []
    try:
        limit = _FREE_BYTES + _RATIO * group.file.id.get_filesize()
        for name in sorted(group):
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise DataError(f"{where}/{name}: it is a link; links are not followed.")
            kind = group.get(name, getclass=True)
            if kind is h5py.Group:
                groups.append(name)
            elif kind is h5py.Dataset:
                array = group[name]
                if array.is_virtual or array.external:
                    raise DataError(f"{where}/{name}: its numbers are in another file; other files are not read.")
                if array.nbytes > limit:
                    raise DataError(
                        f"{where}/{name}: its shape {array.shape} is far more than the file can contain. Do not trust "
                        "this file."
                    )
                if array.dtype.kind in "fiuS" or name == "species":
                    arrays[name] = tuple(array.shape or ())
    except _ERRORS as error:
        raise DataError(f"{where}: it is truncated or altered ({error}).") from error
    return arrays, groups


def _get(group: Any, name: str, where: str) -> Any:
    try:
        return group[name]
    except _ERRORS as error:
        raise DataError(f"{where}/{name}: it is truncated or altered ({error}).") from error


def _molecule(group: Any, arrays: Mapping[str, tuple[int, ...]], layout: str, names: Names, where: str) -> Molecule:
    shape = arrays[names.positions]
    single = len(shape) == 2
    if len(shape) not in (2, 3) or shape[-1] != 3 or 0 in shape:
        raise DataError(f"{where}: the shape of '{names.positions}' is {shape} instead of (structures, atoms, 3).")
    count, atoms = (1, shape[0]) if single else shape[:2]
    if arrays[names.numbers] not in ((atoms,), (count, atoms)):
        raise DataError(f"{where}: the shape of '{names.numbers}' is {arrays[names.numbers]} instead of ({atoms},).")
    structure = (names.numbers, names.positions)
    shapes = {name: (1, *size) if single else size for name, size in arrays.items() if name not in structure}
    return Molecule(layout, count, atoms, shapes, single, where, group)
