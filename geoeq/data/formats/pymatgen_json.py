"""JSON lists of structures of pymatgen with energies, such as mlearn and MatPES."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geoeq.data.containers.unpack import unpacked
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Survey, choose_keys, column_of, columns
from geoeq.data.formats.stated_units import StatedUnits
from geoeq.data.formats.uniform import atomic_numbers
from geoeq.data.preparation.chunks import Frame, chunk_frames
from geoeq.data.records import Records
from geoeq.documents import parse_json
from geoeq.errors import DataError
from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["PymatgenReader"]


#: Levels of mappings above the entries.
_DEPTH = 3


class PymatgenReader(KeyedReader):
    """Reader of JSON files with entries, each with a ``structure`` of pymatgen and quantities beside it.

    The entries are in a list or in nested mappings, such as those of MPtrj; a file may also be a single entry.

    A quantity in a mapping has a dotted name, such as ``outputs.energy``. All directions are periodic. Energies are in
    eV and forces in eV/Å, unless the card states other units. A stress is read only if its key is specified, as files
    differ in its sign, order and unit.

    Args:
        keys: field (or virial) -> key, or null to skip the quantity; ``-name`` is the negative of ``name``.
        length: unit of the cells.
        order: order of the six components of a stress or virial.
    """

    version: ClassVar[int] = 2

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Count the entries and their quantities."""
        graphs, nodes, counts, stated = Counter[str](), Counter[str](), dict.fromkeys(files, 0), StatedUnits()
        for file, path in files.items():
            entries = _entries(path)
            counts[file] = len(entries)
            for index, entry in enumerate(entries):
                stated.add(_values(entry, kinds=(str,)), f"{path}: entry {index} (counted from 0)")
                values = _values(entry)
                graphs.update(values.keys())
                nodes.update(name for name, value in values.items() if isinstance(value, list))
        where, total = ", ".join(map(str, files.values())), sum(counts.values())
        if not total:
            raise DataError(f"{where}: it contains no structures.")
        keys, notes = choose_keys({"stress": None, "virial": None, **self.keys}, graphs, nodes, total, where)
        if "stress" not in self.keys and any("stress" in name or "virial" in name for name in graphs):
            notes.append("A stress is read only if its key is specified, as files differ in its sign, order and unit.")
        totals = sorted(name for name in graphs if "energy" in name)
        if "energy" not in {*keys, *self.keys} and totals:
            notes.append(f"energy is not read; specify its key, which may be one of {', '.join(totals)}.")
        self._scale = self.scale * conversion(stated.length("Å", where), "Å")
        honoured = stated.of_columns(keys, where)
        units = {column_of(name): FIELDS[column_of(name)].unit for name in keys} | honoured
        return Survey(keys, units, counts, [*notes, *stated.notes(honoured)], stated=honoured)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures of all files, in order.

        Raises:
            DataError: a file is truncated, altered or of another kind; the message gives file and entry, from 0.
        """
        survey = self.survey(files)
        yield from chunk_frames(
            self._frame(entry, f"{path}: entry {index} (counted from 0)", survey)
            for path in files.values()
            for index, entry in enumerate(_entries(path))
        )

    def _frame(self, entry: Any, where: str, survey: Survey) -> Frame:
        sites, values = _sites(entry, where), _values(entry)
        try:
            cell = np.array(entry["structure"]["lattice"]["matrix"], dtype=np.float64).reshape(3, 3) * self._scale
            fractions = np.array([site["abc"] for site in sites], dtype=np.float64).reshape(-1, 3)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: its structure does not have the form of pymatgen ({error!r}).") from error
        quantities = columns(survey.keys, values, (), (len(sites),), cell, where, self.order)
        numbers = atomic_numbers(np.array([_element(site, where) for site in sites]), where)
        return Frame(fractions @ cell, numbers, *quantities, cell=cell, pbc=np.array([True] * 3), where=where)


def _entries(path: Path) -> list[Any]:
    with unpacked(path) as plain:
        entries = parse_json(plain.read_bytes(), str(path))
    found = entries if isinstance(entries, list) else list(_nested(entries))
    if not isinstance(entries, list | dict) or (entries and not found):
        raise DataError(f"{path}: it must be a list or mapping of entries, each with a structure of pymatgen.")
    return [_entry(one) for one in found]


def _nested(entry: Any, depth: int = 0) -> Iterator[Any]:
    """Yield the entries in nested mappings, such as material -> step -> entry in MPtrj, or a single entry."""
    if isinstance(entry, dict) and ("structure" in entry or _is_structure(entry)):
        yield entry
    elif isinstance(entry, dict) and depth < _DEPTH:
        for value in entry.values():
            yield from _nested(value, depth + 1)


def _entry(value: Any) -> Any:
    return {"structure": value} if _is_structure(value) else value


def _is_structure(value: Any) -> bool:
    return isinstance(value, dict) and {"lattice", "sites"} <= value.keys()


def _values(entry: Any, prefix: str = "", kinds: tuple[type, ...] = (list, int, float)) -> dict[str, Any]:
    """Return dotted name -> value of one of ``kinds``, by default a number or list, without the structure."""
    values: dict[str, Any] = {}
    for name, value in entry.items() if isinstance(entry, dict) else ():
        if isinstance(value, dict) and name != "structure" and prefix.count(".") < 4:
            values |= _values(value, f"{prefix}{name}.", kinds)
        elif isinstance(value, kinds) and not isinstance(value, bool):
            values[f"{prefix}{name}"] = value
    return values


def _sites(entry: Any, where: str) -> list[Any]:
    structure = entry.get("structure") if isinstance(entry, dict) else None
    sites = structure.get("sites") if isinstance(structure, dict) else None
    if sites is None:
        raise DataError(f"{where}: it has no structure of pymatgen with sites.")
    if not isinstance(sites, list) or not sites:
        raise DataError(f"{where}: its structure has no sites.")
    return sites


def _element(site: Any, where: str) -> str:
    try:
        shares = [(str(one["element"]), float(one["occu"])) for one in site["species"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: the species of a site do not have the form of pymatgen ({error!r}).") from error
    if [share for _, share in shares] != [1]:
        listed = ", ".join(f"{share:g} {element}" for element, share in shares) or "nothing"
        raise DataError(f"{where}: a site is occupied by {listed}; geoeq reads ordered structures only.")
    return shares[0][0]
