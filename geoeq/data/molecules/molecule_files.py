"""Files of molecules without geometry: SMILES with names, one a line or in a column of a CSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from geoeq.errors import DataError

__all__ = ["MOLECULE_SUFFIXES", "NamedMolecule", "read_molecules"]

MOLECULE_SUFFIXES = (".smi", ".smiles", ".csv")

#: Column headings of a CSV file, in small letters.
_SMILES, _NAMES = ("smiles", "canonical_smiles"), ("name", "id", "title", "identifier", "molecule", "compound")


class NamedMolecule(NamedTuple):
    """A molecule of a file.

    Attributes:
        smiles: its SMILES.
        name: its name in the file; empty if it has none.
        where: "file.smi, line 3", counted from 1.
    """

    smiles: str
    name: str
    where: str


def read_molecules(path: str | Path) -> list[NamedMolecule]:
    """Read the molecules of a file of SMILES.

    In a file that ends with .smi or .smiles, the first word of each line is a SMILES and the rest its name; lines that
    begin with # and a first line that begins with the word SMILES are left out. A CSV file has a column ``smiles`` and
    possibly one with names (``name``, ``id``, ``title``, ``identifier``, ``molecule`` or ``compound``).

    Raises:
        DataError: the file does not exist, is not text, contains no SMILES, or has two columns of one name.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name}: the file of SMILES cannot be read ({error}).") from error
    molecules = _csv(text, path.name) if path.suffix.lower() == ".csv" else _lines(text, path.name)
    if not molecules:
        raise DataError(f"{path.name}: it contains no SMILES.")
    return molecules


def _lines(text: str, file: str) -> list[NamedMolecule]:
    molecules = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#") or (number == 1 and words[0].casefold() in _SMILES):
            continue
        molecules.append(NamedMolecule(words[0], "".join(words[1:]).strip(), f"{file}, line {number}"))
    return molecules


def _csv(text: str, file: str) -> list[NamedMolecule]:
    rows = csv.reader(text.splitlines())
    try:
        header = [cell.strip().casefold() for cell in next(rows, [])]
        smiles = next((header.index(name) for name in _SMILES if name in header), None)
        if smiles is None:
            raise DataError(f"{file}: it has no column 'smiles'; its columns are {', '.join(header) or 'none'}.")
        twice = next((cell for cell in header if cell and header.count(cell) > 1), None)
        if twice is not None:
            raise DataError(f"{file}: it has the column '{twice}' twice; keep one.")
        name = next((header.index(name) for name in _NAMES if name in header), None)
        return [
            NamedMolecule(
                row[smiles].strip(),
                row[name].strip() if name is not None and name < len(row) else "",
                f"{file}, line {rows.line_num}",
            )
            for row in rows
            if smiles < len(row) and row[smiles].strip()
        ]
    except csv.Error as error:
        raise DataError(f"{file}, line {rows.line_num}: it is not CSV ({error}).") from error
