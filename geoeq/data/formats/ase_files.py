"""Files of structures that ASE reads (cif, traj, vasprun.xml, OUTCAR, ORCA, ..), and sdf files, held in memory."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geoeq.data.containers.ase_source import ASE_ERRORS, cause
from geoeq.data.formats.ase_frames import file_format, read_frames
from geoeq.data.formats.atom_types import check_types
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Key, Survey, choose_keys, column_of, columns
from geoeq.data.formats.scf_convergence import unconverged_steps
from geoeq.data.formats.stated_units import StatedUnits
from geoeq.data.preparation.chunks import Frame, chunk_frames
from geoeq.data.records import Records
from geoeq.errors import DataError
from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["ASEReader"]

#: Outputs of programs, by ASE's name of the format: they are expected to contain energies and forces.
_OUTPUTS = {"vasp-xml": "VASP", "vasp-out": "VASP", "orca-output": "ORCA"}


class ASEReader(KeyedReader):
    """Reader of any file that ASE reads; it holds all structures in memory.

    The columns are the fields whose keys are specified or detected in results, ``info`` and ``arrays``, in ASE's units.

    Args:
        keys: field (or virial) -> key, or null to skip the quantity; see ``KeyedReader``.
        length: unit of positions and cells.
        order: order of the six components of a stress or virial.
        types: type -> symbol of the element, for files that number the kinds of atoms, such as dumps of LAMMPS.
    """

    version: ClassVar[int] = 4

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
        """Read the structures, and count their quantities."""
        graphs, nodes = Counter[str](), Counter[str]()
        self._frames: list[tuple[Any, dict[str, Any], str]] = []
        counts, notes, stated = dict[str, int](), list[str](), StatedUnits()
        for file, path in files.items():
            with warnings.catch_warnings(record=True) as remarks:
                warnings.simplefilter("always")
                frames = list(_read(path, self.types))
            notes += [f"ASE reports for {path.name}: {remark.message}" for remark in remarks]
            unconverged, text = unconverged_steps(path, file_format(path), len(frames))
            notes += [text] if text else []
            counts[file] = len(frames) - len(unconverged)
            for number, atoms in enumerate(frames):
                where = f"{path}: structure {number} (counted from 0)"
                if number in unconverged:
                    continue
                stated.add(atoms.info, where)
                if len(atoms) == 0:
                    raise DataError(f"{where} has no atoms.")
                values = _values(atoms)
                graphs.update(values.keys())
                nodes.update(name for name, value in values.items() if np.shape(value)[:1] == (len(atoms),))
                self._frames.append((atoms, values, where))
        where, total = ", ".join(map(str, files.values())), len(self._frames)
        if not total:
            raise DataError(" ".join([f"{where}: it contains no structures that can be used.", *notes]))
        keys, choices = choose_keys(self.keys, graphs, nodes, total, where)
        for path in files.values():
            self._check_output(path, keys)
        self._scale = self.scale * conversion(stated.length("Å", where), "Å")
        honoured = stated.of_columns(keys, where)
        units = {column_of(name): FIELDS[column_of(name)].unit for name in keys} | honoured
        notes = [*choices, *stated.notes(honoured), *self._energies(keys), *notes]
        return Survey(keys, units, counts, notes, stated=honoured)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures of all files.

        Raises:
            DataError: a file cannot be read, or a key is missing or ambiguous; the message gives file and structure,
                counted from 0.
        """
        survey = self.survey(files)
        charged = any(atoms.info.get("total_charge") for atoms, _, _ in self._frames)
        periodic = any(atoms.pbc.any() for atoms, _, _ in self._frames)
        yield from chunk_frames(self._frame(*frame, survey, periodic, charged) for frame in self._frames)

    def _frame(
        self, atoms: Any, values: Mapping[str, Any], where: str, survey: Survey, periodic: bool, charged: bool
    ) -> Frame:
        cell = atoms.cell.array * self._scale
        quantities = columns(survey.keys, values, (), (len(atoms),), cell, where, self.order)
        return Frame(
            atoms.positions * self._scale,
            atoms.numbers,
            *quantities,
            cell=cell if periodic else None,
            pbc=atoms.pbc if periodic else None,
            graphs={"total_charge": float(atoms.info.get("total_charge", 0))} if charged else {},
            where=where,
        )

    def _check_output(self, path: Path, keys: Mapping[str, Key]) -> None:
        """Refuse the output of a program without energies or forces, unless the card allows it."""
        program = _OUTPUTS.get(file_format(path))
        for name in ("energy", "forces"):
            if program is None or name in self.keys or name in keys:
                continue
            lacking = next((where for _, values, where in self._frames if name not in values), str(path))
            raise DataError(
                f"{lacking} has no {name} in this output of {program}. To read it nevertheless, use a card with "
                f"'options: {{keys: {{{name}: null}}}}'."
            )

    def _energies(self, keys: Mapping[str, Key]) -> list[str]:
        """Tell which energy is read if there is a free energy too."""
        if "energy" not in keys or keys["energy"].name != "energy":
            return []
        both = [values for _, values, _ in self._frames if "free_energy" in values]
        gap = max((abs(float(values["energy"]) - float(values["free_energy"])) for values in both), default=0.0)
        if gap < 1e-8:
            return []
        return [
            "The energy read is the one without electronic entropy (sigma -> 0). The forces are derivatives of the "
            f"free energy, which differs by up to {gap:.3g} eV; use 'keys: {{energy: free_energy}}' to read that."
        ]


def _read(path: Path, types: Mapping[int, int]) -> Iterator[Any]:
    from ase.io import ParseError
    from ase.io.formats import UnknownFileTypeError

    failures: tuple[type[Exception], ...] = (*ASE_ERRORS, ParseError)
    count = 0
    try:
        for atoms in read_frames(path, types):
            yield atoms
            count += 1
    except UnknownFileTypeError as error:
        raise DataError(f"{path}: ASE does not know this kind of file ({error}).") from error
    except failures as error:
        raise DataError(f"{path}: structure {count} (counted from 0) cannot be read: {cause(error)}") from error


def _values(atoms: Any) -> dict[str, Any]:
    """Return name -> number or array; results of the calculation take precedence over other values of the same name."""
    results = atoms.calc.results if atoms.calc is not None else {}
    arrays = {name: value for name, value in atoms.arrays.items() if name not in ("numbers", "positions")}
    values = {**atoms.info, **arrays, **results}
    return {name: value for name, value in values.items() if _is_numeric(value)}


def _is_numeric(value: object) -> bool:
    try:
        return value is not None and np.asarray(value).dtype.kind in "fiu"
    except ValueError:  # lists of different lengths
        return False
