"""Write predictions as CSV or extended xyz, or print them as a table."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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

__all__ = ["Prediction", "print_predictions", "write_predictions"]

Values = NDArray[np.float64]


@dataclass
class Prediction:
    """A row of a table of predictions.

    Attributes:
        where: "file.xyz, frame 3", "file.smi, line 3" or the SMILES.
        structure: the structure; None if it could not be generated.
        values: output -> value, in the units of the table.
        name: name of the molecule in its file; empty if it has none.
        smiles: SMILES of the molecule; empty if its geometry was given.
        error: reason why there are no values; empty if there are.
    """

    where: str
    structure: Structure | None = None
    values: dict[str, Values] = dataclasses.field(default_factory=dict)
    name: str = ""
    smiles: str = ""
    error: str = ""

    @property
    def formula(self) -> str:
        """Chemical formula; empty without a structure."""
        return "" if self.structure is None else str(self.structure.atoms.get_chemical_formula())


def write_predictions(path: Path, rows: Sequence[Prediction], units: Mapping[str, str]) -> list[str]:
    """Write predictions to a file, atomically; return the names of the outputs in it.

    A CSV file has a row per structure, with a column per component of a vector; a cell is empty where a structure lacks
    an output, as a molecule lacks a stress. Outputs per atom need extended xyz, which has no frame for a structure
    without values. An output that no structure has is left out.

    Args:
        path: file to write; its suffix decides the format, .csv or extended xyz.
        rows: structures with their predictions, at least one of which has values.
        units: output -> unit; "1" if it has none.

    Raises:
        FieldError: all outputs are per atom, and the file is CSV.
    """
    units = _present(units, rows)
    if path.suffix != ".csv":
        _write_xyz(path, [row for row in rows if not row.error], units)
        return list(units)
    names = [name for name in units if field(name).level == "graph"]
    if not names:
        raise FieldError(
            f"{', '.join(map(repr, units))}: these outputs have a value per atom, but CSV has a row per structure. "
            "Write to a file that ends with .xyz."
        )
    _write_csv(path, rows, {name: units[name] for name in names})
    return names


def _present(units: Mapping[str, str], rows: Sequence[Prediction]) -> dict[str, str]:
    """Return the outputs that at least one structure has, with their units."""
    return {name: unit for name, unit in units.items() if any(name in row.values for row in rows)}


def _write_csv(path: Path, rows: Sequence[Prediction], units: Mapping[str, str]) -> None:
    used = {"name": any(row.name for row in rows), "smiles": any(row.smiles not in ("", row.where) for row in rows)}
    labels = [label for label, occurs in used.items() if occurs]
    failed = any(row.error for row in rows)
    counts = {name: next(np.size(row.values[name]) for row in rows if name in row.values) for name in units}
    columns = []
    for name, unit in units.items():
        count = counts[name]
        suffix = "" if unit == "1" else f" [{unit}]"
        columns += [f"{name}{suffix}"] if count == 1 else [f"{name}_{index}{suffix}" for index in range(count)]
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["structure", *labels, "formula", *columns, *(["error"] * failed)])
        for row in rows:
            texts = [getattr(row, label) for label in labels]
            cells = []
            for name, count in counts.items():
                numbers = [f"{number:.8g}" for number in np.reshape(row.values.get(name, []), -1)]
                cells += numbers or [""] * count
            writer.writerow([row.where, *texts, row.formula, *cells, *([row.error] * failed)])


def _write_xyz(path: Path, rows: Sequence[Prediction], units: Mapping[str, str]) -> None:
    from ase.io import write

    frames: list[Atoms] = []
    for row in rows:
        if row.structure is None:
            continue
        atoms = row.structure.atoms.copy()
        atoms.calc = row.structure.atoms.calc  # keep the energies and forces of the input file
        info: dict[str, Any] = {}
        for name, value in row.values.items():
            key = f"predicted_{name}"
            if field(name).level == "node":
                atoms.set_array(key, np.asarray(value))
            else:
                info[key] = float(value) if np.ndim(value) == 0 else np.asarray(value)
        atoms.info.update(info)
        atoms.info["units"] = " ".join(f"predicted_{name}={units[name]}" for name in row.values)
        frames.append(atoms)
    with atomic_write(path) as temporary:
        write(temporary, frames, format="extxyz")


def print_predictions(console: Console, rows: Sequence[Prediction], units: Mapping[str, str]) -> None:
    """Print a table of the outputs per structure, each of which has values.

    Raises:
        FieldError: all outputs are per atom.
    """
    from rich.markup import escape
    from rich.table import Table

    shown = [name for name in _present(units, rows) if field(name).level == "graph"]
    if not shown:
        raise FieldError(
            f"{', '.join(units)}: values per atom do not fit into a table; write to a file with -o out.xyz."
        )
    table = Table("structure", "formula", header_style="")
    for name in shown:
        header = name if units[name] == "1" else f"{name} [{units[name]}]"
        table.add_column(escape(header), justify="right", no_wrap=True)
    for row in rows:
        cells = [" ".join(f"{number:.5g}" for number in np.reshape(row.values.get(name, []), -1)) for name in shown]
        table.add_row(escape(row.name or row.where), row.formula, *cells)
    console.print(table)
