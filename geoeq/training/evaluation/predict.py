"""Predictions of a saved model for structures of a file, or for molecules given as SMILES."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data.structures import Structure, from_smiles, read_structures, to_batch
from geoeq.errors import FieldError, InputError, unknown_name
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
    run: Path,
    console: Console,
    *,
    file: Path | None = None,
    smiles: Sequence[str] = (),
    output: Path | None = None,
    units: Mapping[str, str] | None = None,
    batch_size: int = 256,
    trust: bool = False,
) -> list[dict[str, Values]]:
    """Predict, and write an extended xyz or a CSV file, or print a table of the scalars.

    Values are in the units in which the model was trained to be reported (those of its card), and each unit is
    written beside its name: in the columns of a CSV, in ``info["units"]`` of extended xyz.

    Args:
        run: the folder of a run, or of a checkpoint.
        console: for the progress bar and the table.
        file: structures, in a format that ASE reads, or sdf.
        smiles: molecules, instead of a file.
        output: ends with .xyz, .extxyz or .csv; None prints.
        units: output -> unit, where another one is wanted.
        batch_size: structures at once.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: a structure cannot be what was meant, or is of elements that the model has not seen. The message
            names file and frame. Nothing is written then.
    """
    if (file is None) == (not smiles):
        raise InputError("Give structures to predict: a file, or --smiles.")
    if output is not None and output.suffix not in (".xyz", ".extxyz", ".csv"):
        raise InputError(f"'{output.name}': predictions are written as .xyz (extended) or .csv.")
    model, meta = load_checkpoint(run, trust=trust)
    chosen = _units(model, {**meta.get("report", {}), **(units or {})})
    structures = read_structures(file) if file is not None else from_smiles(smiles)
    predictions = predict_structures(model, structures, console, batch_size=batch_size)
    factors = {name: conversion(field(name).unit, unit) if unit != "1" else 1.0 for name, unit in chosen.items()}
    values = [{name: value * factors[name] for name, value in entry.items()} for entry in predictions]
    if output is None:
        print_predictions(console, structures, values, chosen)
    else:
        write_predictions(output, structures, values, chosen)
        count = f"{len(structures):,} structure{'s' if len(structures) > 1 else ''}"
        console.print(
            f"Predictions for {count} are in '{output}': {', '.join(chosen)}.", highlight=False, soft_wrap=True
        )
    return values


def _units(model: Model, wanted: Mapping[str, str]) -> dict[str, str]:
    for name, unit in wanted.items():
        if name not in model.fields:
            raise FieldError(unknown_name("output of this model", name, model.fields))
        if unit != "1":
            conversion(field(name).unit, unit)
    return {name: wanted.get(name, known.unit) for name, known in model.fields.items()}


def predict_structures(
    model: Model, structures: Sequence[Structure], console: Console, *, batch_size: int = 256
) -> list[dict[str, Values]]:
    """The outputs of a model for each structure, in the units inside.

    Structures are sorted by size for the batches, so that one large structure does not slow many small ones.

    Raises:
        InputError: as ``check_inputs``; the message names the structure.
    """
    import_extra("rich", "train")
    from rich.progress import track

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = next(model.parameters()).dtype
    model = model.to(device).eval()
    order = sorted(range(len(structures)), key=lambda index: len(structures[index].atoms))
    chunks = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    found: dict[int, dict[str, Values]] = {}
    for chunk in track(chunks, "Predicting", console=console, transient=True, disable=not console.is_terminal):
        chosen = [structures[index] for index in chunk]
        found.update(zip(chunk, _predict_batch(model, chosen, dtype, device)))
    return [found[index] for index in range(len(structures))]


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
        for structure in structures:  # find the one
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
