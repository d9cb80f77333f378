"""Files of structures that ASE reads (cif, traj, vasprun.xml, OUTCAR, ORCA, ..), and sdf files, held in memory."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from geoeq.data.containers.ase_source import ASE_ERRORS, cause, read_with_ase
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Key, Survey, choose_keys, column_of, columns
from geoeq.data.molecules.sdf import read_sdf
from geoeq.data.preparation.chunks import Frame, chunk_frames
from geoeq.data.records import Records
from geoeq.errors import DataError
from geoeq.fields import FIELDS

__all__ = ["ASEReader", "read_frames"]

#: Outputs of programs, by ASE's name of the format: they are expected to contain energies and forces.
_OUTPUTS = {"vasp-xml": "VASP", "vasp-out": "VASP", "orca-output": "ORCA"}


class ASEReader(KeyedReader):
    """Reader of any file that ASE reads; it holds all structures in memory.

    The columns are the fields whose keys are specified or detected in results, ``info`` and ``arrays``, in ASE's units.

    Args:
        keys: field (or virial) -> key, or null to skip the quantity; see ``KeyedReader``.
        length: unit of positions and cells.
        order: order of the six components of a stress or virial.
    """

    version: ClassVar[int] = 3

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Read the structures, and count their quantities."""
        graphs, nodes = Counter[str](), Counter[str]()
        self._frames: list[tuple[Any, dict[str, Any], str]] = []
        counts, notes = dict[str, int](), list[str]()
        for file, path in files.items():
            with warnings.catch_warnings(record=True) as remarks:
                warnings.simplefilter("always")
                frames = list(_read(path))
            notes += [f"ASE reports for {path.name}: {remark.message}" for remark in remarks]
            counts[file] = len(frames)
            for number, atoms in enumerate(frames):
                where = f"{path}: structure {number} (counted from 0)"
                if len(atoms) == 0:
                    raise DataError(f"{where} has no atoms.")
                values = _values(atoms)
                graphs.update(values.keys())
                nodes.update(name for name, value in values.items() if np.shape(value)[:1] == (len(atoms),))
                self._frames.append((atoms, values, where))
        where, total = ", ".join(map(str, files.values())), len(self._frames)
        if not total:
            raise DataError(f"{where}: it contains no structures.")
        keys, choices = choose_keys(self.keys, graphs, nodes, total, where)
        for path in files.values():
            self._check_output(path, keys)
        units = {column_of(name): FIELDS[column_of(name)].unit for name in keys}
        return Survey(keys, units, counts, [*choices, *self._energies(keys), *notes])

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures of all files.

        Raises:
            DataError: a file cannot be read, or a key is missing or ambiguous; the message gives file and structure,
                counted from 0.
        """
        survey = self.survey(files)
        periodic = any(atoms.pbc.any() for atoms, _, _ in self._frames)
        yield from chunk_frames(self._frame(*frame, survey, periodic) for frame in self._frames)

    def _frame(self, atoms: Any, values: Mapping[str, Any], where: str, survey: Survey, periodic: bool) -> Frame:
        cell = atoms.cell.array * self.scale
        quantities = columns(survey.keys, values, (), (len(atoms),), cell, where, self.order)
        return Frame(
            atoms.positions * self.scale,
            atoms.numbers,
            *quantities,
            cell=cell if periodic else None,
            pbc=atoms.pbc if periodic else None,
            where=where,
        )

    def _check_output(self, path: Path, keys: Mapping[str, Key]) -> None:
        """Refuse the output of a program without energies or forces, unless the card allows it."""
        program = _OUTPUTS.get(_format(path))
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


def read_frames(path: Path) -> Iterator[Any]:
    """Yield every structure of a file as ASE's Atoms; of an sdf file all records, while ASE reads only the first.

    Raises:
        DataError: an sdf file is damaged.
        Exception: any error of ASE, if another file is damaged.
    """
    from ase import Atoms

    if path.suffix.lower() not in (".sdf", ".mol"):
        yield from read_with_ase(path)
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for molecule in read_sdf(file, path.name):
            info = {"title": molecule.title} if molecule.title else None
            yield Atoms(molecule.numbers, molecule.positions, info=info)


def _read(path: Path) -> Iterator[Any]:
    from ase.io import ParseError
    from ase.io.formats import UnknownFileTypeError

    failures: tuple[type[Exception], ...] = (*ASE_ERRORS, ParseError)
    count = 0
    try:
        for atoms in read_frames(path):
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


def _format(path: Path) -> str:
    """Return ASE's name of the format, or an empty text for files that ASE does not read here."""
    from ase.io.formats import filetype

    return "" if path.suffix.lower() in (".sdf", ".mol") else str(filetype(str(path)))
