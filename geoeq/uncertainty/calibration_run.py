"""Body of ``geoeq calibrate``: turn runs into a model with an uncertainty, and report how reliable it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data import Dataset
from geoeq.errors import CheckpointError, DataError, FieldError, InputError
from geoeq.fields import FIELDS, field, uncertainty_name
from geoeq.files import write_json
from geoeq.models import Ensemble, Forces, GraphScalar, LastLayer, Model
from geoeq.models.checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint
from geoeq.plots import new_table
from geoeq.resources import import_extra
from geoeq.training.evaluation.evaluate import trained_on
from geoeq.trust import Trust
from geoeq.uncertainty.calibration import Calibration, fit_factor, fit_last_layer, measure_calibration
from geoeq.uncertainty.residuals import last_layer_rows, predicted_errors
from geoeq.units import format_number

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["FOLDER", "calibrate", "print_calibration", "uncertain_folder"]

Split = Mapping[str, NDArray[np.int64]]

#: Subfolder of a run for its model with an uncertainty.
FOLDER = "uncertainty"


def calibrate(
    runs: Sequence[str | Path],
    console: Console,
    *,
    target: str | None = None,
    output: str | Path | None = None,
    trust: Trust = False,
) -> dict[str, dict[str, Calibration]]:
    """Add a last-layer uncertainty to one run, or combine several into an ensemble, and measure its calibration.

    Free parameters are fitted on the validation set. The folder then holds a checkpoint that can be used like any
    other, calibration.json and calibration.png.

    Args:
        runs: folders of runs or checkpoints; several must have been trained with the same split.
        console: console for the table.
        target: output of a single run; by default its energy, or the first output with a last layer. Ensembles have an
            uncertainty for every output.
        output: folder to write; by default ``RUN/uncertainty`` for one run.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Returns:
        Output -> part of the split -> calibration, in the units of the report.

    Raises:
        CheckpointError: a checkpoint cannot be read, or does not state its training data.
        DataError: the data are missing, there is no validation set, or the runs were trained with different splits.
        GeoeqError: the models cannot form an ensemble, or the head has no supported last layer (see ``LastLayer``).
    """
    output, folders = None if output is None else Path(output), [Path(run) for run in runs]
    import_extra("rich", "plots")
    import_extra("matplotlib", "plots")
    from geoeq.uncertainty.calibration_plot import draw_calibration

    if len(runs) > 1 and output is None:
        raise InputError("Specify the folder of the ensemble: -o runs/ensemble.")
    if len(runs) > 1 and target is not None:
        raise InputError("An ensemble has an uncertainty of every output: omit the target.")
    loaded = [load_checkpoint(run, trust=trust) for run in runs]
    meta = _common_meta(folders, [entry[1] for entry in loaded])
    dataset, split = trained_on(folders[0], meta, trust=trust)
    parts = {name: split[name] for name in ("valid", "test") if len(split.get(name, ()))}
    if "valid" not in parts:
        raise DataError(f"The split '{meta['data']['split']}' has no validation set, which calibration needs.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    models = [entry[0].to(device) for entry in loaded]
    if len(models) == 1:
        names = [target or _default_target(models[0], meta["targets"])]
        model, method = _last_layer(models[0], names[0], dataset, split)
    else:
        names = [name for name in meta["targets"] if field(name).unit != "1"]
        model, method = _ensemble(models, names, dataset, split)
    units = {name: dataset.card.targets[name].report for name in names}
    residuals = {
        name: {
            part: predicted_errors(model, dataset, indices, name).scaled(dataset.card.targets[name].to_report(name))
            for part, indices in parts.items()
        }
        for name in names
    }
    measured = {
        name: {part: measure_calibration(entry.errors, entry.deviations) for part, entry in by_part.items()}
        for name, by_part in residuals.items()
    }

    folder = output or folders[0] / FOLDER
    sources = [{"path": str(run), "sha256": checkpoint_sha256(run)} for run in runs]
    save_checkpoint(model.cpu(), folder, {**meta, "uncertainty": {**method, "sources": sources}})
    numbers = {
        name: {"unit": units[name], **{part: entry.to_dict() for part, entry in by_part.items()}}
        for name, by_part in measured.items()
    }
    description = {"model": model.title, **method, "sources": sources, "calibration": numbers}
    write_json(folder / "calibration.json", description)
    draw_calibration(folder / "calibration.png", residuals, units, model.title)
    print_calibration(console, measured, units, model.title)
    console.print(
        f"The model with its uncertainty is in '{folder}', with calibration.json and calibration.png.",
        highlight=False,
        soft_wrap=True,
    )
    return measured


def uncertain_folder(run: str | Path, *, trust: Trust = False) -> Path:
    """Return the folder of the checkpoint with an uncertainty: ``run`` itself, or the one calibrated from it.

    Args:
        run: folder of a calibrated ``geoeq train`` run, or a folder written by ``geoeq calibrate``.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Raises:
        CheckpointError: there is no checkpoint, or the run was trained again after its calibration.
        InputError: the run was not calibrated.
    """
    run = Path(run)
    model, _ = load_checkpoint(run, trust=trust)
    if set(model.fields) - set(FIELDS):
        return run
    calibrated = run / FOLDER
    if not calibrated.is_dir():
        raise InputError(f"The model in '{run}' has no uncertainty. Calibrate it: geoeq calibrate {run}")
    _, meta = load_checkpoint(calibrated, trust=trust)
    sources = meta.get("uncertainty", {}).get("sources", [])
    if checkpoint_sha256(run) not in [source["sha256"] for source in sources]:
        raise CheckpointError(
            f"'{calibrated}' was calibrated for another model than the one now in '{run}'. Calibrate it again: geoeq "
            f"calibrate {run}"
        )
    return calibrated


def _common_meta(runs: Sequence[Path], metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = dict(metas[0])
    for run, meta in zip(runs, metas, strict=True):
        same = [meta.get("data", {}).get(key) == first.get("data", {}).get(key) for key in ("name", "split_sha256")]
        if not all(same):
            raise DataError(
                f"'{run}' was trained with another data set or split than '{runs[0]}': the validation data of one "
                "would be training data of the other."
            )
    return first


def _default_target(model: Model, targets: Sequence[str]) -> str:
    heads = [head for head in model.heads if isinstance(head, GraphScalar)]
    names = [head.name for head in heads if head.name in targets]
    if not names:
        raise FieldError(
            f"{model.title} has no GraphScalar head for {', '.join(targets)}, which a last-layer uncertainty needs: "
            "train several models with different seeds, and calibrate them as an ensemble."
        )
    return "energy" if "energy" in names else names[0]


def _last_layer(model: Model, target: str, dataset: Dataset, split: Split) -> tuple[Model, dict[str, Any]]:
    inner = model.model if isinstance(model, Forces) else model
    if not isinstance(inner, Model):
        raise InputError(f"{model.title} wraps a model without heads of geoeq.")
    wrapped = LastLayer(inner, target).to(next(inner.parameters()).device).eval()
    covariance = torch.zeros_like(wrapped.root, device="cpu")
    for features, _ in last_layer_rows(wrapped, dataset, split["train"]):
        covariance += features.mT @ features
    rows = list(last_layer_rows(wrapped, dataset, split["valid"]))
    errors = np.concatenate([entry[1] for entry in rows])
    fit = fit_last_layer(covariance, torch.cat([entry[0] for entry in rows]), errors)
    wrapped.set_covariance(covariance, fit.regularizer, fit.scale)
    method = {"kind": "last layer", "target": target, "regularizer": fit.regularizer, "scale": fit.scale}
    return (Forces(wrapped, model.stress) if isinstance(model, Forces) else wrapped).eval(), method


def _ensemble(
    models: Sequence[Model], names: Sequence[str], dataset: Dataset, split: Split
) -> tuple[Model, dict[str, Any]]:
    plain = Ensemble(models).eval()
    lacking = [name for name in names if uncertainty_name(name) not in plain.fields]
    if lacking:
        raise FieldError(f"The models do not predict {', '.join(lacking)}, although they were trained on it.")
    factors = {}
    for name in names:
        residuals = predicted_errors(plain, dataset, split["valid"], name)
        factors[name] = fit_factor(residuals.errors, residuals.deviations)
    return Ensemble(models, factors).eval(), {"kind": "ensemble", "members": len(models), "factors": factors}


def print_calibration(
    console: Console, measured: Mapping[str, Mapping[str, Calibration]], units: Mapping[str, str], title: str
) -> None:
    """Print a table for each output, with a row for each part of the split.

    Args:
        console: console to print to.
        measured: output -> part -> calibration, in the units.
        units: output -> unit; "1" if dimensionless.
        title: title of the tables.
    """
    for name, parts in measured.items():
        unit = "" if units[name] == "1" else f" [{units[name]}]"
        columns = ("RMSE", "mean σ", "NLL", "area", "in 1σ", "in 2σ", "Spearman")
        table = new_table(f"{title}: {name}{unit}", "", *columns)
        for part, entry in parts.items():
            table.add_row(
                part,
                format_number(entry.rmse),
                format_number(entry.deviation),
                f"{entry.nll:.3f}",
                f"{entry.miscalibration:.3f}",
                f"{100 * entry.within_1:.1f}%",
                f"{100 * entry.within_2:.1f}%",
                f"{entry.spearman:.2f}",
            )
        console.print(table)
        ence = ", ".join(f"{100 * entry.ence:.0f}% ({part})" for part, entry in parts.items())
        factors = ", ".join(f"{entry.median_factor:.2f} ({part})" for part, entry in parts.items())
        console.print(f"ENCE: {ence}. Median factor of the estimates: {factors}.", highlight=False)
        heavy = ", ".join(part for part, entry in parts.items() if entry.heavy_tails)
        if heavy:
            console.print(
                f"The errors have heavier tails than a Gaussian ({heavy}): a few large errors determine the scale, and "
                "most errors are smaller than their estimates. See the plot.",
                highlight=False,
                style="yellow",
            )
    console.print(
        "For a Gaussian, 68.3% of the errors are within 1σ, 95.4% within 2σ, and the area (miscalibration) is 0. The "
        "scale was fitted on valid; judge by test.",
        highlight=False,
        style="dim",
    )
