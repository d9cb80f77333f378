"""Databases of ASE in SQLite, row by row; also those of SchNetPack, which say their units."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Survey, choose, column_of, columns
from geoeq.data.formats.uniform import atomic_numbers
from geoeq.data.formats.unit_names import in_our_words
from geoeq.data.prepare.chunks import Frame, in_chunks
from geoeq.data.records import Records
from geoeq.errors import DataError, FieldError
from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["ASEDatabaseReader"]

#: What ASE keeps in columns of its own.
_RESULTS = ("energy", "free_energy", "forces", "stress", "dipole", "charges")
#: What ASE raises where a database is truncated or altered.
_ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, ArithmeticError, AssertionError, AttributeError, LookupError)
_ERRORS += (MemoryError, OSError, RecursionError, TypeError, ValueError)


class ASEDatabaseReader(KeyedReader):
    """Reads databases of ASE (``.db``): calculated results, key-value pairs and arrays of the data of each row.

    Units are those of ASE, or what the metadata say (``_property_unit_dict`` and ``_distance_unit`` of SchNetPack).

    Args:
        keys: field (or virial) -> name, null for what is not to be read; see ``KeyedReader``.
        length: unit of positions and cells, where the metadata do not say it.
        order: of six components of a stress or virial.
    """

    version: ClassVar[int] = 1

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Count the rows and what they have."""
        graphs, nodes, counts = Counter[str](), Counter[str](), dict.fromkeys(files, 0)
        said = {path: _said_units(path) for path in files.values()}
        units = next(iter(said.values()))
        where = ", ".join(map(str, files.values()))
        if any(other != units for other in said.values()):
            raise DataError(f"{where}: the databases have different units.")
        self._periodic = False
        for file, path in files.items():
            for row in _rows(path):
                counts[file] += 1
                self._periodic |= bool(np.any(row.pbc))
                for name, value in _values(row, f"{path}: row {row.id}").items():
                    graphs[name] += 1
                    nodes[name] += np.shape(value)[:1] == (row.natoms,)
        total = sum(counts.values())
        if not total:
            raise DataError(f"{where}: there is not one structure in it.")
        keys, notes = choose(self.keys, graphs, nodes, total, where)
        if any(key.name in units for key in keys.values()):
            notes.append("The units are those that the metadata of the database say.")
        self._scale = self.scale
        if "_distance_unit" in units:
            try:
                self._scale = conversion(units["_distance_unit"], "Å")
            except FieldError as error:
                raise DataError(f"{where}: the unit of lengths in the metadata: {error}") from error
        said_units = {column_of(name): units.get(key.name, FIELDS[column_of(name)].unit) for name, key in keys.items()}
        return Survey(keys, said_units, counts, notes)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """The rows of all files, in the order of their numbers.

        Raises:
            DataError: a file is truncated, altered or no database of ASE; the message gives file and row.
        """
        survey = self.survey(files)
        yield from in_chunks(self._frames(files, survey))

    def _frames(self, files: Mapping[str, Path], survey: Survey) -> Iterator[Frame]:
        for path in files.values():
            for row in _rows(path):
                where = f"{path}: row {row.id}"
                values = _values(row, where)
                cell = np.asarray(row.cell, dtype=np.float64) * self._scale
                numbers = atomic_numbers(np.asarray(row.numbers), where)
                found = columns(survey.keys, values, (), (len(numbers),), cell, where, self.order)
                yield Frame(
                    np.asarray(row.positions, dtype=np.float64) * self._scale,
                    numbers,
                    *found,
                    cell=cell if self._periodic else None,
                    pbc=np.asarray(row.pbc, dtype=bool) if self._periodic else None,
                    where=where,
                )


def _rows(path: Path) -> Iterator[Any]:
    """The rows of a database in the order of their numbers."""
    count = 0
    try:
        for row in _open(path).select(include_data=True):
            yield row
            count += 1
    except _ERRORS as error:
        raise DataError(f"{path}: it is truncated or altered, after {count} rows ({error!r}).") from error


def _open(path: Path) -> Any:
    """The database; it is looked at before, as ASE makes its tables in a file that has none."""
    from ase.db import connect

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"{path}: it is truncated or altered, or no SQLite database ({error}).") from error
    if not {"systems", "information"} <= tables:
        raise DataError(f"{path}: it is no database of ASE; its tables are {', '.join(sorted(tables)) or 'none'}.")
    return connect(path, type="db", use_lock_file=False)


def _values(row: Any, where: str) -> dict[str, Any]:
    """Name -> value of all that is known about a row and is a number or an array."""
    try:
        found = {name: row.get(name) for name in _RESULTS if row.get(name) is not None}
        found |= {name: value for name, value in row.key_value_pairs.items() if not isinstance(value, str)}
        found |= {name: value for name, value in row.data.items() if np.asarray(value).dtype.kind in "fiu"}
    except _ERRORS as error:
        raise DataError(f"{where}: it is truncated or altered ({error!r}).") from error
    return found


def _said_units(path: Path) -> dict[str, str]:
    """Name -> unit, where the metadata say it, and the unit of lengths as ``_distance_unit``."""
    try:
        metadata = _open(path).metadata
        units = dict(metadata.get("_property_unit_dict") or {})
        if metadata.get("_distance_unit"):
            units["_distance_unit"] = metadata["_distance_unit"]
        return {str(name): in_our_words(str(unit)) for name, unit in units.items()}
    except _ERRORS as error:
        raise DataError(f"{path}: its metadata are truncated or altered ({error!r}).") from error
