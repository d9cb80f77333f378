"""Files that ASE reads: extended xyz with a text file of reference energies, and trajectories."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from geoeq.data.catalysts.entries import Entry, read_entry
from geoeq.data.catalysts.frames import Task, fixed_atoms, make_frame
from geoeq.data.preparation.chunks import Frame
from geoeq.errors import DataError

__all__ = ["read_text", "read_trajectory"]


def read_text(entry: Entry, notes: Entry | None, task: Task) -> Iterator[Frame]:
    """Yield the structures of an extended xyz file: total energies, and adsorption energies if references are known.

    Args:
        entry: the xyz file.
        notes: file with a line for each structure: system, frame, reference energy (eV); None if there is none.
        task: quantities to read; such files contain only energy and forces.

    Raises:
        DataError: a file is truncated or altered, or the two files do not match; the message names it.
    """
    if task.relaxed:
        raise DataError(f"{entry}: extended xyz files contain no relaxed structures.")
    lines = None if notes is None else _decoded(notes).splitlines()
    count = 0
    for count, atoms in enumerate(_read(io.StringIO(_decoded(entry)), "extxyz", str(entry)), start=1):
        where = f"{entry}: structure {count - 1}"
        energies, forces = _results(atoms, where)
        system = frame = None
        if lines is not None:
            if count > len(lines):
                raise DataError(f"{notes} has {len(lines)} lines, fewer than {entry} has structures.")
            system, frame, reference = _parse(lines[count - 1], f"{notes}: line {count}")
            energies["adsorption_energy"] = energies["total_energy"] - reference
        yield make_frame(where, _atoms(atoms, where), energies, {"forces": forces}, system, frame)
    if lines is not None and count != len(lines):
        raise DataError(f"{entry} has {count} structures, and {notes} {len(lines)} lines: one of them is truncated.")


def read_trajectory(entry: Entry, task: Task) -> Iterator[Frame]:
    """Yield the steps of a relaxation with total energies; or, for a relaxed task, the first with the last as target.

    Raises:
        DataError: the file is truncated or altered; the message names it.
    """
    match = re.search(r"random(\d+)", entry.name)
    system = int(match[1]) if match else None
    steps = _read(io.BytesIO(read_entry(entry)), "traj", str(entry))
    if not task.relaxed:
        for number, atoms in enumerate(steps):
            where = f"{entry}: structure {number}"
            energies, forces = _results(atoms, where)
            yield make_frame(where, _atoms(atoms, where), energies, {"forces": forces}, system, number)
        return
    first = last = None
    for last in steps:
        first = last if first is None else first
    if first is None or last is None:
        raise DataError(f"{entry}: it contains no structures.")
    energies = {
        "initial_energy": _results(first, str(entry))[0]["total_energy"],
        "relaxed_energy": _results(last, str(entry))[0]["total_energy"],
    }
    yield make_frame(str(entry), _atoms(first, str(entry)), energies, {"relaxed_positions": last.positions}, system, 0)


def _decoded(entry: Entry) -> str:
    try:
        return read_entry(entry).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{entry} is not text ({error}).") from error


def _read(file: Any, form: str, where: str) -> Iterator[Any]:
    from ase.io import iread

    count = 0
    try:
        for atoms in iread(file, index=":", format=form):
            yield atoms
            count += 1
    except Exception as error:  # ASE's readers raise many types of errors
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: structure {count} (counted from 0) cannot be read: {error!r:.200}") from error


def _results(atoms: Any, where: str) -> tuple[dict[str, Any], Any]:
    results = atoms.calc.results if atoms.calc is not None else {}
    for name in ("energy", "forces"):
        if name not in results:
            raise DataError(f"{where}: it has no '{name}'.")
    return {"total_energy": results["energy"]}, results["forces"]


def _atoms(atoms: Any, where: str) -> dict[str, Any]:
    return {
        "pos": atoms.positions,
        "atomic_numbers": atoms.numbers,
        "cell": atoms.cell.array,
        "tags": atoms.get_tags(),
        "fixed": fixed_atoms(where, len(atoms), atoms.constraints),
        "pbc": atoms.pbc,
    }


def _parse(line: str, where: str) -> tuple[int, int, float]:
    """Parse a line such as ``random1234,frame56,-123.4``."""
    words: Sequence[str] = line.split(",")
    try:
        return int(words[0].removeprefix("random")), int(words[1].removeprefix("frame")), float(words[2])
    except (IndexError, ValueError) as error:
        raise DataError(f"{where}: the line must be system, frame and reference energy, not {line[:60]!r}.") from error
