"""QM9 in its published formats: one xyz file per molecule in a tar.bz2, or an sdf and a csv file in one archive."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, ClassVar, NamedTuple

import numpy as np

from geoeq.data.containers.archive import open_members
from geoeq.data.containers.ase_source import ASE_ERRORS, cause, read_with_ase
from geoeq.data.molecules.sdf import read_sdf
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError

__all__ = ["ATOM_REFERENCES", "QM9Reader"]

#: Properties in the order of the xyz files.
_PROPERTIES = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
#: Other names in the csv file, and in the extended xyz file of the sample.
_IN_CSV = dict(zip(("u0", "u298", "h298", "g298", "cv"), ("U0", "U", "H", "G", "Cv")))
_IN_SAMPLE = {"epsHOMO": "homo", "epsLUMO": "lumo", "epsgap": "gap", "<R2>": "r2"}

#: Energies of the free atoms in Ha at the level of theory of the data, from atomref.txt of the publication (figshare
#: 1057643).
ATOM_REFERENCES: dict[str, dict[int, float]] = {
    "U0": {1: -0.500273, 6: -37.846772, 7: -54.583861, 8: -75.064579, 9: -99.718730},
    "U": {1: -0.498857, 6: -37.845355, 7: -54.582445, 8: -75.063163, 9: -99.717314},
    "H": {1: -0.497912, 6: -37.844411, 7: -54.581501, 8: -75.062219, 9: -99.716370},
    "G": {1: -0.510927, 6: -37.861317, 7: -54.598897, 8: -75.079532, 9: -99.733544},
}

#: Number of molecules in the list of the publication: their relaxed geometry lost some of the bonds.
_UNCHARACTERIZED = 3054
_LIST = "uncharacterized.txt"


class _Molecule(NamedTuple):
    number: int  # in GDB-9, counted from 1
    numbers: Array  # [n]
    positions: Array  # [n, 3]
    properties: list[float]  # as in _PROPERTIES


class QM9Reader:
    """Reader of the molecules in the order of their index, without those listed in uncharacterized.txt.

    The columns are those of the publication (homo, lumo, gap, zpve, U0, U, H, G in Ha; mu in D; alpha in a0^3; r2 in
    a0^2; Cv in cal/mol/K), ``rotational_constants`` [G, 3] in GHz, and ``U0_atomization`` etc. in Ha: the total energy
    minus ``ATOM_REFERENCES``, negative if bound.

    Args:
        molecules: expected number of molecules in the file, including those that are left out.
        drop_uncharacterized: whether to leave out the molecules of the list, which must then exist.
    """

    version: ClassVar[int] = 1

    def __init__(self, molecules: int = 133885, drop_uncharacterized: bool = True) -> None:
        self.molecules = molecules
        self.drop_uncharacterized = drop_uncharacterized

    def read(self, files: Mapping[str, Path]) -> Records:
        """Read the molecules of ``files``: one archive (or extended xyz file) and, if needed, the list.

        Raises:
            DataError: a file is truncated, altered or missing; the message names it and the molecule.
        """
        dropped: set[int] = set()
        if self.drop_uncharacterized:
            dropped = _read_list(files[_LIST])
        (path,) = [path for name, path in files.items() if name != _LIST]
        molecules = sorted(_read(path), key=lambda molecule: molecule.number)
        if len(molecules) != self.molecules:
            raise DataError(f"{path} contains {len(molecules)} molecules instead of {self.molecules}.")
        numbers = {molecule.number for molecule in molecules}
        if len(numbers) != len(molecules):
            raise DataError(f"{path} contains {len(molecules) - len(numbers)} molecules twice.")
        return _records([molecule for molecule in molecules if molecule.number not in dropped], str(path))


def _read(path: Path) -> Iterator[_Molecule]:
    if path.suffix in (".xyz", ".extxyz"):
        return _read_sample(path)
    return _read_xyz_archive(path) if ".xyz." in path.name else _read_sdf_archive(path)


def _read_list(path: Path) -> set[int]:
    """Read the indices in uncharacterized.txt: the first word of each line, if it is a number."""
    words = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    indices = {int(word[0]) for word in words if word and word[0].isdecimal() and len(word[0]) < 10}
    if len(indices) != _UNCHARACTERIZED:
        raise DataError(
            f"{path} lists {len(indices)} molecules instead of {_UNCHARACTERIZED}. It is truncated, or another file. "
            "Delete it and fetch it again."
        )
    return indices


def _read_xyz_archive(path: Path) -> Iterator[_Molecule]:
    for name, content in open_members(path):
        if name.endswith(".xyz"):
            yield _parse_xyz(content.read().decode("utf-8", errors="replace"), f"{path}: {name}")


def _parse_xyz(text: str, where: str) -> _Molecule:
    from ase.data import atomic_numbers

    # Small numbers have the form 6.3*^-6.
    lines = text.replace("*^", "e").splitlines()
    try:
        count, words = int(lines[0]), lines[1].split()
        atoms = [line.split() for line in lines[2 : 2 + count]]
        numbers = np.array([atomic_numbers[atom[0]] for atom in atoms], dtype=np.uint8)
        positions = np.array([[float(word) for word in atom[1:4]] for atom in atoms]).reshape(-1, 3)
        molecule = _Molecule(int(words[1]), numbers, positions, [float(word) for word in words[2:]])
    except (IndexError, ValueError, KeyError) as error:
        raise DataError(f"{where}: it is truncated or not in the format of QM9 ({error!r}).") from error
    if not 0 < count == len(numbers) or words[0] != "gdb" or len(molecule.properties) != len(_PROPERTIES):
        raise DataError(f"{where}: it has {len(numbers)} atoms, not {count}, or its second line is not that of QM9.")
    return molecule


def _read_sdf_archive(path: Path) -> Iterator[_Molecule]:
    atoms: dict[str, tuple[Array, Array]] = {}
    properties: dict[str, list[float]] = {}
    for name, content in open_members(path):
        if name.endswith(".sdf"):
            where = f"{path}: {name}"
            atoms = {one.title: (one.numbers, one.positions) for one in read_sdf(_text(content), where)}
        elif name.endswith(".csv"):
            properties = _read_csv(_text(content), f"{path}: {name}")
    if not atoms or not properties:
        raise DataError(f"{path}: it must contain an .sdf and a .csv file.")
    if atoms.keys() != properties.keys():
        odd = sorted(atoms.keys() ^ properties.keys())[0]
        raise DataError(f"{path}: the molecule '{odd}' is only in one of the .sdf and the .csv file.")
    for title, (numbers, positions) in atoms.items():
        yield _Molecule(int(title.removeprefix("gdb_")), numbers, positions, properties[title])


def _read_csv(lines: Iterable[str], where: str) -> dict[str, list[float]]:
    """Return title -> properties. The columns of atomization energies, in kcal/mol, are not used."""
    rows = csv.DictReader(lines)
    names = {_IN_CSV.get(name, name): name for name in rows.fieldnames or []}
    missing = [name for name in ("mol_id", *_PROPERTIES) if name not in names]
    if missing:
        raise DataError(f"{where}: it has no column '{missing[0]}'.")
    try:
        return {row["mol_id"]: [float(row[names[name]]) for name in _PROPERTIES] for row in rows}
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: line {rows.line_num} is truncated or altered ({error}).") from error


def _text(content: IO[bytes]) -> Iterator[str]:
    return (line.decode("utf-8", errors="replace") for line in content)


def _read_sample(path: Path) -> Iterator[_Molecule]:
    """Read an extended xyz file; its molecules have no index and are numbered consecutively."""
    index = 0
    try:
        for index, atoms in enumerate(read_with_ase(path, "extxyz"), start=1):
            values = {_IN_SAMPLE.get(name, name): value for name, value in atoms.info.items()}
            missing = [name for name in _PROPERTIES if name not in values]
            if missing:
                raise DataError(f"{path}: molecule {index} has no '{missing[0]}'.")
            yield _Molecule(index, atoms.numbers, atoms.positions, [float(values[name]) for name in _PROPERTIES])
    except ASE_ERRORS as error:
        raise DataError(f"{path}: it is truncated or altered near molecule {index + 1} ({cause(error)}).") from error


def _records(molecules: list[_Molecule], where: str) -> Records:
    counts = [len(molecule.numbers) for molecule in molecules]
    ptr = np.concatenate([[0], np.cumsum(counts)])
    numbers = np.concatenate([molecule.numbers for molecule in molecules]).astype(np.uint8)
    table = np.array([molecule.properties for molecule in molecules])  # [G, 15]
    columns: dict[str, Array] = {name: table[:, i] for i, name in enumerate(_PROPERTIES)}
    columns["rotational_constants"] = table[:, :3]
    for name, references in ATOM_REFERENCES.items():
        unknown = np.setdiff1d(numbers, list(references))
        if len(unknown):
            raise DataError(
                f"{where}: QM9 contains only H, C, N, O and F, but there is an atom of atomic number {unknown[0]}."
            )
        of_element = np.zeros(max(references) + 1)
        of_element[list(references)] = list(references.values())
        columns[f"{name}_atomization"] = columns[name] - np.add.reduceat(of_element[numbers], ptr[:-1])
    positions = np.concatenate([molecule.positions for molecule in molecules])
    return Records(positions=positions, ptr=ptr, numbers=numbers, columns=columns)
