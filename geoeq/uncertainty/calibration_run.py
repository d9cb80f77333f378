"""The body of ``geoeq calibrate``: runs become a model that knows its uncertainty, and a picture of how well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data import Dataset
from geoeq.errors import DataError, FieldError, InputError
from geoeq.fields import field, uncertainty_name
from geoeq.files import write_text
from geoeq.models import Ensemble, Forces, GraphScalar, LastLayer, Model
from geoeq.models.checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint
from geoeq.resources import import_extra
from geoeq.training.evaluation.evaluate import trained_on
from geoeq.uncertainty.calibration import Calibration, fit_factor, measure_calibration
from geoeq.uncertainty.last_layer_fit import fit_last_layer
from geoeq.uncertainty.residuals import ErrorsMade, last_layer_rows, predicted_errors
from geoeq.uncertainty.uncertain_model import FOLDER

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["calibrate"]

Split = Mapping[str, NDArray[np.int64]]


def calibrate(
    runs: Sequence[Path],
    console: Console,
    *,
    target: str | None = None,
    output: Path | None = None,
    trust: bool = False,
) -> dict[str, dict[str, Calibration]]:
    """Give one run the uncertainty of its last layer, or make an ensemble of several, and measure how right it is.

    The free numbers are found on the validation set. The folder then holds a checkpoint, which all that takes a
    checkpoint takes, calibration.json and calibration.png.

    Args:
        runs: folders of runs, or of checkpoints; several must have been trained with the same split.
        console: for the table.
        target: of one run: the output; by default its energy, or the first that has a last layer. Ensembles have an
            uncertainty of every output.
        output: the folder to write; by default ``RUN/uncertainty`` for one run.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Returns:
        Output -> part of the split -> what was measured, in the units of the report.

    Raises:
        CheckpointError: a checkpoint cannot be read, or does not say what it was trained on.
        DataError: the data are not there, there is no validation set, or the runs were trained with other splits.
        GeoeqError: the models make no ensemble, or the head has no last layer that is known (see ``LastLayer``).
    """
    import_extra("rich", "train")
    import_extra("matplotlib", "train")
    from geoeq.uncertainty.calibration_plot import draw_calibration
    from geoeq.uncertainty.calibration_table import print_calibration

    if len(runs) > 1 and output is None:
        raise InputError("Say where the ensemble is to be written: -o runs/ensemble.")
    if len(runs) > 1 and target is not None:
        raise InputError("An ensemble has an uncertainty of every output: leave out the target.")
    loaded = [load_checkpoint(run, trust=trust) for run in runs]
    meta = _common_meta(runs, [entry[1] for entry in loaded])
    dataset, split = trained_on(runs[0], meta)
    parts = {name: split[name] for name in ("valid", "test") if len(split.get(name, ()))}
    if "valid" not in parts:
        raise DataError(f"The split '{meta['data']['split']}' has no validation set to calibrate an uncertainty with.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = [entry[0].to(device) for entry in loaded]
    if len(models) == 1:
        name = target or _default_target(models[0], meta["targets"])
        model, told = _last_layer(models[0], name, dataset, split)
        names = [name]
    else:
        names = [name for name in meta["targets"] if field(name).unit != "1"]
        model, told = _ensemble(models, names, dataset, split)
    made = {
        name: {part: predicted_errors(model, dataset, places, name) for part, places in parts.items()} for name in names
    }
    factors = {name: dataset.card.targets[name].to_report(name) for name in names}
    units = {name: dataset.card.targets[name].report for name in names}
    made = {name: {part: _scaled(entry, factors[name]) for part, entry in by.items()} for name, by in made.items()}
    measured = {
        name: {part: measure_calibration(entry.errors, entry.deviations) for part, entry in by.items()}
        for name, by in made.items()
    }

    folder = output or runs[0] / FOLDER
    sources = [{"path": str(run), "sha256": checkpoint_sha256(run)} for run in runs]
    save_checkpoint(model.cpu(), folder, {**meta, "uncertainty": {**told, "sources": sources}})
    numbers = {
        name: {"unit": units[name], **{part: entry.to_dict() for part, entry in by.items()}}
        for name, by in measured.items()
    }
    description = {"model": model.title, **told, "sources": sources, "calibration": numbers}
    write_text(folder / "calibration.json", json.dumps(description, indent=2, ensure_ascii=False) + "\n")
    draw_calibration(folder / "calibration.png", made, units, model.title)
    print_calibration(console, measured, units, model.title)
    console.print(
        f"The model with its uncertainty is in '{folder}', with calibration.json and calibration.png.",
        highlight=False,
        soft_wrap=True,
    )
    return measured


def _common_meta(runs: Sequence[Path], metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = dict(metas[0])
    for run, meta in zip(runs, metas, strict=True):
        same = [meta.get("data", {}).get(key) == first.get("data", {}).get(key) for key in ("name", "split_sha256")]
        if not all(same):
            raise DataError(
                f"'{run}' was trained with another data set or split than '{runs[0]}': what one has learnt is what the "
                "other would be calibrated with."
            )
    return first


def _default_target(model: Model, targets: Sequence[str]) -> str:
    heads = [head for head in model.heads if isinstance(head, GraphScalar)]
    named = [head.name for head in heads if head.name in targets]
    if not named:
        raise FieldError(
            f"{model.title} has no GraphScalar for {', '.join(targets)}, of whose last layer an uncertainty is made: "
            "train several with other seeds, and make an ensemble."
        )
    return "energy" if "energy" in named else named[0]


def _last_layer(model: Model, target: str, dataset: Dataset, split: Split) -> tuple[Model, dict[str, Any]]:
    inner = model.model if isinstance(model, Forces) else model
    if not isinstance(inner, Model):
        raise InputError(f"{model.title} has no heads that are known here.")
    certain = LastLayer(inner, target).to(next(inner.parameters()).device).eval()
    covariance = torch.zeros_like(certain.root, device="cpu")
    for features, _ in last_layer_rows(certain, dataset, split["train"]):
        covariance += features.mT @ features
    rows = list(last_layer_rows(certain, dataset, split["valid"]))
    errors = np.concatenate([entry[1] for entry in rows])
    fit = fit_last_layer(covariance, torch.cat([entry[0] for entry in rows]), errors)
    certain.set_covariance(covariance, fit.regularizer, fit.scale)
    told = {"kind": "last layer", "target": target, "regularizer": fit.regularizer, "scale": fit.scale}
    return (Forces(certain, model.stress) if isinstance(model, Forces) else certain).eval(), told


def _ensemble(
    models: Sequence[Model], names: Sequence[str], dataset: Dataset, split: Split
) -> tuple[Model, dict[str, Any]]:
    plain = Ensemble(models).eval()
    lacking = [name for name in names if uncertainty_name(name) not in plain.fields]
    if lacking:
        raise FieldError(f"The models do not give {', '.join(lacking)}, with which they were trained.")
    factors = {}
    for name in names:
        made = predicted_errors(plain, dataset, split["valid"], name)
        factors[name] = fit_factor(made.errors, made.deviations)
    return Ensemble(models, factors).eval(), {"kind": "ensemble", "members": len(models), "factors": factors}


def _scaled(made: ErrorsMade, factor: float) -> ErrorsMade:
    return ErrorsMade(made.errors * factor, made.deviations * factor)
