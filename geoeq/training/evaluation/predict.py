"""Predict with a saved model for the structures of a file, or for SMILES."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data.structures import Structure, from_smiles, read_structures, to_batch
from geoeq.errors import FieldError, InputError, check_name
from geoeq.fields import field
from geoeq.models import Model
from geoeq.models.checkpoint import load_checkpoint
from geoeq.resources import import_extra
from geoeq.training.evaluation.outputs import print_predictions, write_predictions
from geoeq.units import conversion

if TYPE_CHECKING:
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
    trust: bool = False,
) -> list[dict[str, Values]]:
    """Predict, and write an extended xyz or CSV file, or print a table of the scalars.

    Values are in the units of the report (those of the card that the model was trained with). The file contains the
    units: a CSV file in its column names, extended xyz in ``info["units"]``.

    Args:
        run: folder of a run or checkpoint.
        console: output console of the progress bar and the table.
        file: file of structures, in a format that ASE reads, or sdf.
        smiles: molecules as SMILES, instead of a file.
        output: file to write, with suffix .xyz, .extxyz or .csv; None prints a table.
        units: output -> unit that replaces the unit of the report.
        batch_size: number of structures per batch.
        conformers: for an sdf file: whether to generate the geometries from the bonds instead of reading them.
        trust: import and run classes outside geoeq that the checkpoint names.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: a structure is invalid, or has elements unknown to the model. The message names file and frame, and
            nothing is written.
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
    structures = read_structures(file, conformers=conformers) if file is not None else from_smiles(smiles)
    predictions = predict_structures(model, structures, console, batch_size=batch_size)
    factors = {name: conversion(field(name).unit, unit) if unit != "1" else 1.0 for name, unit in output_units.items()}
    values = [{name: value * factors[name] for name, value in entry.items()} for entry in predictions]
    if output is None:
        print_predictions(console, structures, values, output_units)
    else:
        write_predictions(output, structures, values, output_units)
        count = f"{len(structures):,} structure{'s' if len(structures) > 1 else ''}"
        console.print(
            f"Predictions for {count} are in '{output}': {', '.join(output_units)}.", highlight=False, soft_wrap=True
        )
    return values


def _units(model: Model, units: Mapping[str, str]) -> dict[str, str]:
    for name, unit in units.items():
        check_name("output of this model", name, model.fields, FieldError)
        if unit != "1":
            conversion(field(name).unit, unit)
    return {name: units.get(name, known.unit) for name, known in model.fields.items()}


def predict_structures(
    model: Model, structures: Sequence[Structure], console: Console, *, batch_size: int = 256
) -> list[dict[str, Values]]:
    """Return the outputs of a model for each structure, in internal units.

    Batches have structures of similar size, so that one large structure does not slow down many small ones.

    Args:
        model: model.
        structures: structures to predict.
        console: output console of the progress bar.
        batch_size: number of structures per batch.

    Raises:
        InputError: ``check_inputs`` refuses a structure; the message names it.
    """
    import_extra("rich", "train")
    from rich.progress import track

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = next(model.parameters()).dtype
    model = model.to(device).eval()
    order = sorted(range(len(structures)), key=lambda index: len(structures[index].atoms))
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    predictions: dict[int, dict[str, Values]] = {}
    for chunk in track(chunks, "Predicting", console=console, transient=True, disable=not console.is_terminal):
        chosen = [structures[index] for index in chunk]
        predictions.update(zip(chunk, _predict_batch(model, chosen, dtype, device)))
    return [predictions[index] for index in range(len(structures))]


def _predict_batch(
    model: Model, structures: Sequence[Structure], dtype: torch.dtype, device: torch.device
) -> list[dict[str, Values]]:
    try:
        batch = to_batch([structure.atoms for structure in structures], dtype).to(device)
        with torch.no_grad():
            outputs = model(batch)
    except InputError as error:
        if len(structures) == 1:
            raise type(error)(f"{structures[0].where}: {error}") from error
        for structure in structures:  # find the invalid one
            _predict_batch(model, [structure], dtype, device)
        raise
    pointers = batch.ptr.tolist()
    arrays = {name: value.double().cpu().numpy() for name, value in outputs.items()}
    return [
        {
            name: array[pointers[i] : pointers[i + 1]] if field(name).level == "node" else array[i]
            for name, array in arrays.items()
        }
        for i in range(len(structures))
    ]
