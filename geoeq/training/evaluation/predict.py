"""Predict with a saved model for the structures of a file, or for SMILES."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data.molecules.molecule_files import MOLECULE_SUFFIXES, NamedMolecule, read_molecules
from geoeq.data.structures import Structure, from_smiles, read_structures, to_batch
from geoeq.errors import FieldError, InputError, check_name
from geoeq.fields import field
from geoeq.models import Model
from geoeq.models.charge_use import ignored_charge
from geoeq.models.checkpoint import load_checkpoint
from geoeq.resources import import_extra
from geoeq.training.evaluation.outputs import Prediction, print_predictions, write_predictions
from geoeq.trust import Trust
from geoeq.units import conversion

if TYPE_CHECKING:
    from ase import Atoms
    from rich.console import Console

__all__ = ["predict", "predict_structures"]

Values = NDArray[np.float64]


def predict(
    run: str | Path,
    console: Console,
    *,
    file: str | Path | None = None,
    smiles: Sequence[str] = (),
    output: str | Path | None = None,
    units: Mapping[str, str] | None = None,
    batch_size: int = 256,
    conformers: bool = False,
    trust: Trust = False,
) -> list[dict[str, Values]]:
    """Predict, and write an extended xyz or CSV file, or print a table of the scalars.

    A structure for which there is no prediction (an invalid SMILES, an element unknown to the model) does not affect
    the others: its entry is empty, and its reason is printed and, in a CSV file, written in the column ``error``.

    Values are in the units of the report (those of the card that the model was trained with). The file contains the
    units: a CSV file in its column names, extended xyz in ``info["units"]``.

    Args:
        run: folder of a run or checkpoint, or name of a published potential that was fetched.
        console: output console of the progress bar and the table.
        file: file of structures, in a format that ASE reads, or sdf; or file of SMILES, .smi or .csv.
        smiles: molecules as SMILES, instead of a file.
        output: file to write, with suffix .xyz, .extxyz or .csv; None prints a table.
        units: output -> unit that replaces the unit of the report.
        batch_size: number of structures per batch.
        conformers: for an sdf file: whether to generate the geometries from the bonds instead of reading them.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        DataError: the file cannot be read.
        InputError: there is no prediction for any structure; nothing is written.
    """
    run = Path(run)
    file = None if file is None else Path(file)
    output = None if output is None else Path(output)
    if (file is None) == (not smiles):
        raise InputError("Specify the structures to predict: a file, or --smiles.")
    if output is not None and output.suffix not in (".xyz", ".extxyz", ".csv"):
        raise InputError(f"'{output.name}': the output file must end with .xyz, .extxyz or .csv.")
    model, meta = load_checkpoint(run, trust=trust)
    output_units = _units(model, {**meta.get("report", {}), **(units or {})})
    factors = {name: conversion(field(name).unit, unit) if unit != "1" else 1.0 for name, unit in output_units.items()}
    rows = _read(file, smiles, conformers)
    structures = [row.structure for row in rows if row.structure is not None]
    refused: dict[int, InputError] = {}
    found = iter(predict_structures(model, structures, console, batch_size=batch_size, refused=refused))
    reasons = iter(str(refused.get(index, "")) for index in range(len(structures)))
    for row in rows:
        if row.structure is not None:
            row.error = next(reasons)
            row.values = {name: value * factors[name] for name, value in next(found).items()}
    done = [row for row in rows if not row.error]
    if not done:
        more = f" None of the other {len(rows) - 1} structures has a prediction either." if len(rows) > 1 else ""
        raise type(refused.get(0, InputError()))(f"{rows[0].where}: {rows[0].error}{more}")
    note = _note_on_charge(model, [row.structure for row in done if row.structure is not None])
    if output is None:
        print_predictions(console, done, output_units)
    else:
        written = write_predictions(output, rows, output_units)
        count = f"{len(done):,} structure{'s' if len(done) > 1 else ''}"
        left_out = [name for name in output_units if name not in written and field(name).level == "node"]
        text = f"Predictions for {count} are in '{output}': {', '.join(written)}."
        if left_out:
            text += f" Not in a CSV file, as they have a value per atom: {', '.join(left_out)}; write .extxyz for them."
        console.print(text, highlight=False, soft_wrap=True)
    for line in (note, *(f"No prediction for {row.where}: {row.error}" for row in rows if row.error)):
        if line is not None:
            console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    return [row.values for row in rows]


def _read(file: Path | None, smiles: Sequence[str], conformers: bool) -> list[Prediction]:
    """Return the structures, without values; a SMILES without a conformer has the reason instead."""
    if file is not None and file.suffix.lower() not in MOLECULE_SUFFIXES:
        return [Prediction(structure.where, structure) for structure in read_structures(file, conformers=conformers)]
    molecules = [NamedMolecule(text, "", text) for text in smiles] if file is None else read_molecules(file)
    rows = []
    for molecule in molecules:
        row = Prediction(molecule.where, name=molecule.name, smiles=molecule.smiles)
        try:
            row.structure = Structure(from_smiles([molecule.smiles])[0].atoms, molecule.where)
            row.structure.atoms.info |= {"name": molecule.name} if molecule.name else {}
        except InputError as error:
            row.error = str(error)
        rows.append(row)
    return rows


def _note_on_charge(model: Model, structures: Sequence[Structure]) -> str | None:
    """Return a sentence about the first structure with a net charge that the model does not use."""
    parameter = next(model.parameters())
    for structure in structures:
        data = to_batch([structure.atoms], parameter.dtype).to(parameter.device)
        if "total_charge" in data and bool(data.total_charge.any()):
            note = ignored_charge(model, data)
            return None if note is None else f"{structure.where}: {note}"
    return None


def _units(model: Model, units: Mapping[str, str]) -> dict[str, str]:
    for name, unit in units.items():
        check_name("output of this model", name, model.fields, FieldError)
        if unit != "1":
            conversion(field(name).unit, unit)
    return {name: units.get(name, known.unit) for name, known in model.fields.items()}


@torch.inference_mode(False)  # tensors of inference mode could not be used in derivatives
def predict_structures(
    model: Model,
    structures: Sequence[Structure],
    console: Console,
    *,
    batch_size: int = 256,
    refused: dict[int, InputError] | None = None,
) -> list[dict[str, Values]]:
    """Return the outputs of a model for each structure, in internal units.

    Batches have structures of similar size, so that one large structure does not slow down many small ones. Structures
    with and without a volume are in separate batches, because only batches of the former have a stress.

    Args:
        model: model.
        structures: structures to predict.
        console: output console of the progress bar.
        batch_size: number of structures per batch.
        refused: filled with index -> reason of the structures that the model refuses, which then have no outputs; None
            raises the first reason.

    Raises:
        InputError: the model refuses a structure, and ``refused`` is None; the message names it.
    """
    import_extra("rich", "plots")
    from rich.progress import track

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = next(model.parameters()).dtype
    model = model.to(device).eval()
    groups: tuple[list[int], list[int]] = [], []
    for index in sorted(range(len(structures)), key=lambda index: len(structures[index].atoms)):
        groups[_has_volume(structures[index].atoms)].append(index)
    chunks = [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]
    predictions: dict[int, dict[str, Values]] = {}
    for chunk in track(chunks, "Predicting", console=console, transient=True, disable=not console.is_terminal):
        try:
            found = _predict_batch(model, [structures[index].atoms for index in chunk], dtype, device)
        except InputError:
            found = []
            for index in chunk:
                try:
                    found += _predict_batch(model, [structures[index].atoms], dtype, device)
                except InputError as error:
                    if refused is None:
                        raise type(error)(f"{structures[index].where}: {error}") from error
                    refused[index] = error
                    found.append({})
        predictions.update(zip(chunk, found, strict=True))
    return [predictions[index] for index in range(len(structures))]


def _has_volume(atoms: Atoms) -> bool:
    return bool(atoms.pbc.any() and atoms.cell.rank == 3)


def _predict_batch(
    model: Model, structures: Sequence[Atoms], dtype: torch.dtype, device: torch.device
) -> list[dict[str, Values]]:
    batch = to_batch(structures, dtype).to(device)
    with torch.no_grad():
        outputs = model(batch)
    pointers = batch.ptr.tolist()
    arrays = {name: value.double().cpu().numpy() for name, value in outputs.items()}
    return [
        {
            name: array[pointers[i] : pointers[i + 1]] if field(name).level == "node" else array[i]
            for name, array in arrays.items()
        }
        for i in range(len(structures))
    ]
