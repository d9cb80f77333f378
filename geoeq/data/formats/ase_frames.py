"""Structures of a file as Atoms: by ASE, after refusing what ASE would guess; xyz and sdf by geoeq's own parsers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from geoeq.data.containers.ase_source import ASE_ERRORS, cause, read_with_ase
from geoeq.data.containers.unpack import bare_suffix, read_lines
from geoeq.data.formats.atom_types import LammpsFile, is_lammps_data
from geoeq.data.formats.extxyz_text import SYMBOLS, read_blocks, structure_of
from geoeq.data.formats.stated_units import StatedUnits
from geoeq.data.molecules.conformers import embed_molfile
from geoeq.data.molecules.plausibility import drawing_fault
from geoeq.data.molecules.sdf import SdfMolecule, read_sdf
from geoeq.errors import DataError
from geoeq.units import conversion

__all__ = ["file_format", "read_frames"]

_MOLECULES = (".sdf", ".mol")
_XYZ = (".xyz", ".extxyz")

#: Exponents of Fortran, which ASE does not read.
_FORTRAN = re.compile(r"(?<![\w.])(\d*\.\d*|\d+(?=[Dd][+-]))[Dd]([+-]?\d+)(?![\w.])")

#: Deviation of an occupancy from 1 that is round-off.
_OCCUPIED = 1e-3

_ORDERED = "geoeq reads ordered structures only: choose one, such as a supercell, and write it to a file."


def read_frames(path: Path, types: Mapping[int, int] | None = None, *, conformers: bool = False) -> Iterator[Any]:
    """Yield every structure of a file as ASE's Atoms; of an sdf file all records, while ASE reads only the first.

    Args:
        path: path of the file.
        types: type -> atomic number, for files that number the kinds of atoms.
        conformers: whether to generate a conformer for each molecule of an sdf file from its bonds, instead of reading
            its positions.

    Raises:
        DataError: an xyz or sdf file is damaged; atoms have no element, partial occupancies or unknown types; or a
            molecule is a drawing.
        Exception: any error of ASE, if another file is damaged.
    """
    suffix = bare_suffix(path)
    if conformers and suffix not in _MOLECULES:
        raise DataError(f"{path}: conformers can be generated for sdf files, which contain bonds, and for SMILES.")
    if suffix in _MOLECULES:
        for molecule in read_sdf(read_lines(path), path.name):
            yield _conformer(molecule, path.name) if conformers else _of_sdf(molecule, path.name)
    elif suffix in _XYZ:
        yield from _of_xyz(path, types or {})
    else:
        yield from _of_ase(path, types or {})


def file_format(path: Path) -> str:
    """Return ASE's name of the format, or an empty text for files that geoeq parses itself."""
    from ase.io.formats import filetype

    if bare_suffix(path) in (*_MOLECULES, *_XYZ):
        return ""
    return "lammps-data" if is_lammps_data(path) else str(filetype(str(path)))


def _of_sdf(molecule: SdfMolecule, where: str) -> Any:
    from ase import Atoms

    fault = drawing_fault(molecule)
    if fault is not None:
        raise DataError(
            f"{where}: {molecule.title or 'a molecule'}: {fault}, not a geometry. Generate conformers ('geoeq predict "
            "--conformers', or read_structures(.., conformers=True)), or give a file with the geometry."
        )
    atoms = Atoms(molecule.numbers, molecule.positions, info={"title": molecule.title} if molecule.title else None)
    if molecule.charges.sum():
        atoms.info["total_charge"] = int(molecule.charges.sum())
    if molecule.masses:
        masses = atoms.get_masses()
        masses[[*molecule.masses]] = [*molecule.masses.values()]
        atoms.set_masses(masses)
    return atoms


def _conformer(molecule: SdfMolecule, where: str) -> Any:
    atoms = embed_molfile(molecule.text, f"{where}: {molecule.title or 'a molecule'}")
    atoms.info |= {"title": molecule.title} if molecule.title else {}
    return atoms


def _of_xyz(path: Path, types: Mapping[int, int]) -> Iterator[Any]:
    """Yield Atoms whose structure is what geoeq's parser reads; ASE adds results, velocities and constraints."""
    from ase.data import chemical_symbols
    from ase.io import read

    stated = StatedUnits()
    for block in read_blocks(path):
        stated.add(block.info, block.where)
        scale = conversion(stated.length("Å", block.where), "Å")
        numbers, positions, cell, pbc = structure_of(block, types, scale)
        first = next((first for name, (first, _) in block.layout.items() if name in SYMBOLS), None)
        if first is not None:
            for row, number in zip(block.rows, numbers):
                row[first] = chemical_symbols[number]
        text = "\n".join([block.comment, *(" ".join(row) for row in block.rows), ""])
        try:
            atoms: Any = read(StringIO(f"{len(numbers)}\n" + _FORTRAN.sub(r"\1E\2", text)), format="extxyz")
        except ASE_ERRORS as error:
            raise DataError(f"{block.where} cannot be read: {cause(error)}") from error
        atoms.positions, atoms.numbers = positions, numbers
        atoms.set_cell(cell)
        atoms.set_pbc(pbc)
        if atoms.calc is not None:  # ASE drops results of other atoms than those of the calculator
            atoms.calc.atoms = atoms.copy()
        _check_occupancy(atoms, block.where)
        yield atoms


def _of_ase(path: Path, types: Mapping[int, int]) -> Iterator[Any]:
    kind = file_format(path)
    lammps = LammpsFile(path, kind, types) if kind.startswith("lammps") else None
    for index, atoms in enumerate(read_with_ase(path, kind, **(lammps.options if lammps else {}))):
        where = f"{path}: structure {index} (counted from 0)"
        if lammps is not None:
            lammps.set_elements(atoms, where)
        _check_occupancy(atoms, where)
        yield atoms


def _check_occupancy(atoms: Any, where: str) -> None:
    """Refuse sites that are partly occupied or shared; ASE keeps them as full atoms and a remark."""
    stated = atoms.info.get("occupancy")
    sites = stated.values() if isinstance(stated, Mapping) else ()
    for site in sites:
        if isinstance(site, Mapping) and (len(site) > 1 or abs(sum(map(float, site.values())) - 1) > _OCCUPIED):
            shares = ", ".join(f"{share:g} {symbol}" for symbol, share in site.items())
            raise DataError(f"{where}: a site is occupied by {shares}; {_ORDERED}")
    of_atoms = np.asarray(atoms.arrays.get("occupancy", ()), dtype=np.float64)
    partial = np.flatnonzero((of_atoms > _OCCUPIED) & (np.abs(of_atoms - 1) > _OCCUPIED))  # 0 means "not stated" in PDB
    if len(partial):
        atom = partial[0]
        raise DataError(
            f"{where}: atom {atom} ({atoms.symbols[atom]}) has the occupancy {of_atoms[atom]:g}; {_ORDERED}"
        )
