"""Write predictions as CSV or extended xyz, or print them as a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from geoeq.data.structures import Structure
from geoeq.errors import FieldError
from geoeq.fields import field
from geoeq.files import atomic_write

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

__all__ = ["print_predictions", "write_predictions"]

Values = NDArray[np.float64]


def write_predictions(
    path: Path, structures: Sequence[Structure], values: Sequence[Mapping[str, Values]], units: Mapping[str, str]
) -> None:
    """Write all predictions to a file, atomically.

    A CSV file has a row per structure, with a column per component of a vector. Outputs per atom need extended xyz.

    Args:
        path: file to write; its suffix decides the format, .csv or extended xyz.
        structures: structures of the predictions.
        values: output -> value, for each structure.
        units: output -> unit; "1" if it has none.

    Raises:
        FieldError: an output is per atom, and the file is CSV.
    """
    if path.suffix == ".csv":
        _write_csv(path, structures, values, units)
    else:
        _write_xyz(path, structures, values, units)


def _write_csv(
    path: Path, structures: Sequence[Structure], values: Sequence[Mapping[str, Values]], units: Mapping[str, str]
) -> None:
    for name in units:
        if field(name).level != "graph":
            raise FieldError(
                f"'{name}' has a value per atom, but CSV has a row per structure. Write to a file that ends with .xyz."
            )
    columns = ["structure", "formula"]
    for name, unit in units.items():
        count = np.size(values[0][name])
        suffix = "" if unit == "1" else f" [{unit}]"
        columns += [f"{name}{suffix}"] if count == 1 else [f"{name}_{index}{suffix}" for index in range(count)]
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for structure, entry in zip(structures, values):
            numbers = [f"{number:.8g}" for name in units for number in np.reshape(entry[name], -1)]
            writer.writerow([structure.where, structure.atoms.get_chemical_formula(), *numbers])


def _write_xyz(
    path: Path, structures: Sequence[Structure], values: Sequence[Mapping[str, Values]], units: Mapping[str, str]
) -> None:
    from ase.io import write

    frames: list[Atoms] = []
    for structure, entry in zip(structures, values):
        atoms = structure.atoms.copy()
        atoms.calc = structure.atoms.calc  # keep the energies and forces of the input file
        info: dict[str, Any] = {}
        for name, value in entry.items():
            key = f"predicted_{name}"
            if field(name).level == "node":
                atoms.set_array(key, np.asarray(value))
            else:
                info[key] = float(value) if np.ndim(value) == 0 else np.asarray(value)
        atoms.info.update(info)
        atoms.info["units"] = " ".join(f"predicted_{name}={unit}" for name, unit in units.items())
        frames.append(atoms)
    with atomic_write(path) as temporary:
        write(temporary, frames, format="extxyz")


def print_predictions(
    console: Console, structures: Sequence[Structure], values: Sequence[Mapping[str, Values]], units: Mapping[str, str]
) -> None:
    """Print a table of the outputs per structure.

    Raises:
        FieldError: all outputs are per atom.
    """
    from rich.markup import escape
    from rich.table import Table

    shown = [name for name in units if field(name).level == "graph"]
    if not shown:
        raise FieldError(
            f"{', '.join(units)}: values per atom do not fit into a table; write to a file with -o out.xyz."
        )
    table = Table("structure", "formula", header_style="")
    for name in shown:
        header = name if units[name] == "1" else f"{name} [{units[name]}]"
        table.add_column(escape(header), justify="right", no_wrap=True)
    for structure, entry in zip(structures, values):
        cells = [" ".join(f"{number:.5g}" for number in np.reshape(entry[name], -1)) for name in shown]
        table.add_row(escape(structure.where), structure.atoms.get_chemical_formula(), *cells)
    console.print(table)
