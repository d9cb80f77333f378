"""Databases of ASE in SQLite, read row by row; also those of SchNetPack, which state their units."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Survey, choose_keys, column_of, columns
from geoeq.data.formats.stated_units import normalize_unit
from geoeq.data.formats.uniform import atomic_numbers
from geoeq.data.preparation.chunks import Frame, chunk_frames
from geoeq.data.records import Records
from geoeq.errors import DataError, FieldError
from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["ASEDatabaseReader"]

#: Results that ASE stores in separate columns.
_RESULTS = ("energy", "free_energy", "forces", "stress", "dipole", "charges")
#: Errors of ASE when a database is truncated or altered.
_ERRORS: tuple[type[Exception], ...] = (sqlite3.Error, ArithmeticError, AssertionError, AttributeError, LookupError)
_ERRORS += (MemoryError, OSError, RecursionError, TypeError, ValueError)


class ASEDatabaseReader(KeyedReader):
    """Reader of databases of ASE (``.db``): the results, key-value pairs and data arrays of each row.

    Units are those of ASE, or those in the metadata (``_property_unit_dict`` and ``_distance_unit`` of SchNetPack).

    Args:
        keys: field (or virial) -> key, or null to skip the quantity; see ``KeyedReader``.
        length: unit of positions and cells, if the metadata do not state it.
        order: order of the six components of a stress or virial.
    """

    version: ClassVar[int] = 1

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Count the rows and their quantities."""
        graphs, nodes, counts = Counter[str](), Counter[str](), dict.fromkeys(files, 0)
        stated = {path: _stated_units(path) for path in files.values()}
        units = next(iter(stated.values()))
        where = ", ".join(map(str, files.values()))
        if any(other != units for other in stated.values()):
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
            raise DataError(f"{where}: it contains no structures.")
        keys, notes = choose_keys(self.keys, graphs, nodes, total, where)
        if any(key.name in units for key in keys.values()):
            notes.append("The units are those in the metadata of the database.")
        self._scale = self.scale
        if "_distance_unit" in units:
            try:
                self._scale = conversion(units["_distance_unit"], "Å")
            except FieldError as error:
                raise DataError(f"{where}: the unit of length in the metadata: {error}") from error
        honoured = {column_of(name): units[key.name] for name, key in keys.items() if key.name in units}
        of_columns = {column_of(name): units.get(key.name, FIELDS[column_of(name)].unit) for name, key in keys.items()}
        return Survey(keys, of_columns, counts, notes, stated=honoured)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the rows of all files, in the order of their numbers.

        Raises:
            DataError: a file is truncated, altered or not a database of ASE; the message gives file and row.
        """
        survey = self.survey(files)
        yield from chunk_frames(self._frames(files, survey))

    def _frames(self, files: Mapping[str, Path], survey: Survey) -> Iterator[Frame]:
        for path in files.values():
            for row in _rows(path):
                where = f"{path}: row {row.id}"
                values = _values(row, where)
                cell = np.asarray(row.cell, dtype=np.float64) * self._scale
                numbers = atomic_numbers(np.asarray(row.numbers), where)
                quantities = columns(survey.keys, values, (), (len(numbers),), cell, where, self.order)
                yield Frame(
                    np.asarray(row.positions, dtype=np.float64) * self._scale,
                    numbers,
                    *quantities,
                    cell=cell if self._periodic else None,
                    pbc=np.asarray(row.pbc, dtype=bool) if self._periodic else None,
                    where=where,
                )


def _rows(path: Path) -> Iterator[Any]:
    """Yield the rows of a database in the order of their numbers."""
    count = 0
    try:
        for row in _open(path).select(include_data=True):
            yield row
            count += 1
    except _ERRORS as error:
        raise DataError(f"{path}: it is truncated or altered, after {count} rows ({error!r}).") from error


def _open(path: Path) -> Any:
    """Open a database after checking it, because ASE creates its tables in a file that has none."""
    from ase.db import connect

    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except (OSError, sqlite3.Error) as error:
        raise DataError(f"{path}: it is truncated, altered or not an SQLite database ({error}).") from error
    if not {"systems", "information"} <= tables:
        raise DataError(f"{path}: it is not a database of ASE; its tables are {', '.join(sorted(tables)) or 'none'}.")
    return connect(path, type="db", use_lock_file=False)


def _values(row: Any, where: str) -> dict[str, Any]:
    """Return name -> value of all numbers and arrays of a row."""
    try:
        values = {name: row.get(name) for name in _RESULTS if row.get(name) is not None}
        values |= {name: value for name, value in row.key_value_pairs.items() if not isinstance(value, str)}
        values |= {name: value for name, value in row.data.items() if np.asarray(value).dtype.kind in "fiu"}
    except _ERRORS as error:
        raise DataError(f"{where}: it is truncated or altered ({error!r}).") from error
    return values


def _stated_units(path: Path) -> dict[str, str]:
    """Return name -> unit as stated in the metadata, and the unit of length as ``_distance_unit``."""
    try:
        metadata = _open(path).metadata
        units = dict(metadata.get("_property_unit_dict") or {})
        if metadata.get("_distance_unit"):
            units["_distance_unit"] = metadata["_distance_unit"]
        return {str(name): normalize_unit(str(unit)) for name, unit in units.items()}
    except _ERRORS as error:
        raise DataError(f"{path}: the metadata are truncated or altered ({error!r}).") from error
