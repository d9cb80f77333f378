"""JSON lists of structures of pymatgen with their energies, as mlearn and MatPES have them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geoeq.data.containers.unpack import unpacked
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Survey, choose, column_of, columns
from geoeq.data.formats.uniform import atomic_numbers
from geoeq.data.prepare.chunks import Frame, in_chunks
from geoeq.data.records import Records
from geoeq.errors import DataError
from geoeq.fields import FIELDS

__all__ = ["PymatgenReader"]


class PymatgenReader(KeyedReader):
    """Reads JSON files that hold a list of entries, each with a ``structure`` of pymatgen and quantities beside it.

    A quantity in a mapping is named with a dot, as in ``outputs.energy``. All directions repeat. Energies are in eV and
    forces in eV/Å, unless the card says otherwise; no stress is taken unless it is told, as files differ in its sign,
    order and unit.

    Args:
        keys: field (or virial) -> key, null for what is not to be read; ``-name`` is the opposite of ``name``.
        length: unit of the cells.
        order: of six components of a stress or virial.
    """

    version: ClassVar[int] = 1

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Count the entries and what they have."""
        graphs, nodes, counts = Counter[str](), Counter[str](), dict.fromkeys(files, 0)
        for file, path in files.items():
            entries = _entries(path)
            counts[file] = len(entries)
            for entry in entries:
                values = _values(entry)
                graphs.update(values.keys())
                nodes.update(name for name, value in values.items() if isinstance(value, list))
        where, total = ", ".join(map(str, files.values())), sum(counts.values())
        if not total:
            raise DataError(f"{where}: there is not one structure in it.")
        keys, notes = choose({"stress": None, "virial": None, **self.keys}, graphs, nodes, total, where)
        if "stress" not in self.keys and any("stress" in name or "virial" in name for name in graphs):
            notes.append("A stress is read only where its key is told: files differ in its sign, order and unit.")
        return Survey(keys, {column_of(name): FIELDS[column_of(name)].unit for name in keys}, counts, notes)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """The structures of all files, in their order.

        Raises:
            DataError: a file is truncated, altered or of another kind; the message gives file and entry, from 0.
        """
        survey = self.survey(files)
        yield from in_chunks(
            self._frame(entry, f"{path}: entry {place} (counted from 0)", survey)
            for path in files.values()
            for place, entry in enumerate(_entries(path))
        )

    def _frame(self, entry: Any, where: str, survey: Survey) -> Frame:
        sites, values = _sites(entry, where), _values(entry)
        try:
            cell = np.array(entry["structure"]["lattice"]["matrix"], dtype=np.float64).reshape(3, 3) * self.scale
            fractions = np.array([site["abc"] for site in sites], dtype=np.float64).reshape(-1, 3)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: its structure is not as pymatgen writes it ({error!r}).") from error
        found = columns(survey.keys, values, (), (len(sites),), cell, where, self.order)
        numbers = atomic_numbers(np.array([_element(site, where) for site in sites]), where)
        return Frame(fractions @ cell, numbers, *found, cell=cell, pbc=np.array([True] * 3), where=where)


def _entries(path: Path) -> list[Any]:
    with unpacked(path) as plain:
        try:
            entries = json.loads(plain.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: it is truncated or altered ({error}).") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: it should be a list of entries with a structure of pymatgen each.")
    return entries


def _values(entry: Any, before: str = "") -> dict[str, Any]:
    """Dotted name -> number or list, without the structure."""
    found: dict[str, Any] = {}
    for name, value in entry.items() if isinstance(entry, dict) else ():
        if isinstance(value, dict) and name != "structure" and before.count(".") < 4:
            found |= _values(value, f"{before}{name}.")
        elif isinstance(value, list) or (isinstance(value, int | float) and not isinstance(value, bool)):
            found[f"{before}{name}"] = value
    return found


def _sites(entry: Any, where: str) -> list[Any]:
    try:
        sites = entry["structure"]["sites"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{where}: it has no structure of pymatgen with its sites ({error!r}).") from error
    if not isinstance(sites, list) or not sites:
        raise DataError(f"{where}: its structure has no sites.")
    return sites


def _element(site: Any, where: str) -> str:
    try:
        (species,) = site["species"]
        element, share = str(species["element"]), float(species["occu"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: a site should have one element ({error!r}).") from error
    if share != 1:
        raise DataError(f"{where}: a site is occupied by {share} of {element}; 1 would be right.")
    return element
