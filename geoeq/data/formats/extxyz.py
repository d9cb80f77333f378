"""Extended xyz: for each structure a line of key=value pairs, and the columns that it declares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from geoeq.data.formats.atom_types import check_types
from geoeq.data.formats.extxyz_text import (
    STRUCTURE,
    Block,
    is_periodic,
    numbers_of,
    read_blocks,
    structure_of,
    values_of_column,
    values_of_pair,
)
from geoeq.data.formats.isolated import FreeAtoms, is_free_atom
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Key, Survey, choose_keys, column_of, columns, is_of_nodes
from geoeq.data.formats.stated_units import StatedUnits, states_unit
from geoeq.data.preparation.chunks import Frame, chunk_frames
from geoeq.data.records import Records
from geoeq.errors import DataError
from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["ExtxyzReader"]


class ExtxyzReader(KeyedReader):
    """Reader of extended xyz files, plain or compressed (gz, bz2, xz).

    The columns are the fields whose keys are specified or detected, in the units of ASE. Free atoms, marked by
    ``config_type=IsolatedAtom``, are left out. If there is one for each element, there is a column
    ``atomization_energy``: the energy minus that of the free atoms.

    Args:
        keys: field (or virial) -> key in the file, or null to skip the quantity; see ``KeyedReader``.
        length: unit of positions and cells.
        order: order of the six components of a stress or virial.
        types: type -> symbol of the element, for files that number the kinds of atoms.
    """

    version: ClassVar[int] = 3

    def __init__(
        self,
        keys: Mapping[str, str | None] | None = None,
        length: str | None = None,
        order: str = "ase",
        types: Mapping[object, str] | None = None,
    ) -> None:
        super().__init__(keys, length, order)
        self.types = check_types(types)

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Count structures, keys and elements."""
        graphs, nodes, elements = Counter[str](), Counter[str](), set[int]()
        counts = dict.fromkeys(files, 0)
        free: list[Block] = []
        stated = StatedUnits()
        periodic = False
        for file, path in files.items():
            for block in read_blocks(path):
                stated.add(block.info, block.where)
                if is_free_atom(len(block.rows), block.info.get("config_type")):
                    free.append(block)
                    continue
                counts[file] += 1
                graphs.update(key for key in block.info if key not in STRUCTURE and not states_unit(key))
                nodes.update(block.layout.keys() - STRUCTURE)
                elements.update(numbers_of(block, self.types).tolist())
                periodic = periodic or is_periodic(block)
        where, total = ", ".join(map(str, files.values())), sum(counts.values())
        if not total:
            raise DataError(f"{where}: it contains no structures" + (" except free atoms." if free else "."))
        keys, notes = choose_keys(self.keys, graphs, nodes, total, where)
        notes += [f"'{key}' is not used: all structures weigh the same." for key in graphs if key.endswith("weight")]
        self._periodic = periodic
        self._atoms = FreeAtoms({})
        self._scale = self.scale * conversion(stated.length("Å", where), "Å")
        honoured = stated.of_columns(keys, where)
        notes += stated.notes(honoured)
        units = {column_of(name): FIELDS[column_of(name)].unit for name in keys} | honoured
        if free and "energy" in keys:
            self._atoms = FreeAtoms(dict(self._free_atom(block, keys["energy"]) for block in free))
            notes.append(self._atoms.describe(sorted(elements)))
            if elements <= self._atoms.energies.keys():
                units["atomization_energy"] = units["energy"]
        elif free:
            notes.append(f"{len(free)} free atoms are left out.")
        return Survey(keys, units, counts, notes, stated=honoured)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures of all files, in order.

        Raises:
            DataError: a file is truncated or altered, or a key is missing or ambiguous; the message gives file and
                structure, counted from 0.
        """
        survey = self.survey(files)
        yield from chunk_frames(self._frames(files, survey))

    def _frames(self, files: Mapping[str, Path], survey: Survey) -> Iterator[Frame]:
        for path in files.values():
            for block in read_blocks(path):
                if not is_free_atom(len(block.rows), block.info.get("config_type")):
                    yield self._frame(block, survey)

    def _frame(self, block: Block, survey: Survey) -> Frame:
        numbers, positions, cell, pbc = structure_of(block, self.types, self._scale)
        values = {
            key.name: values_of_column(block, key.name) if is_of_nodes(name) else values_of_pair(block, key.name)
            for name, key in survey.keys.items()
            if is_of_nodes(name) or key.name in block.info
        }
        of_graph, of_nodes = columns(survey.keys, values, (), (len(numbers),), cell, block.where, self.order)
        if "atomization_energy" in survey.units:
            of_graph["atomization_energy"] = self._atoms.atomization_energy(of_graph["energy"], numbers)
        return Frame(
            positions=positions,
            numbers=numbers,
            of_graph=of_graph,
            of_nodes=of_nodes,
            cell=cell if self._periodic else None,
            pbc=pbc if self._periodic else None,
            where=block.where,
        )

    def _free_atom(self, block: Block, energy: Key) -> tuple[int, float]:
        if energy.name not in block.info:
            raise DataError(f"{block.where}: this free atom lacks the key '{energy.name}' of the energy.")
        of_graph, _ = columns(
            {"energy": energy}, {energy.name: values_of_pair(block, energy.name)}, (), (1,), None, block.where
        )
        return int(numbers_of(block, self.types)[0]), float(of_graph["energy"])
