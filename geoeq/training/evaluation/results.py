"""Results: the errors of a model on parts of a data set, beside baselines and published errors, and their table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data import Dataset
from geoeq.errors import RecipeError
from geoeq.models import Model
from geoeq.models.charge_use import ignored_charge
from geoeq.plots import new_table
from geoeq.training.evaluation.baselines import Baseline
from geoeq.training.evaluation.metrics import errors, free, headline, metric_unit
from geoeq.units import format_number

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Row", "TargetResults", "compare", "note_ignored_charge", "predict_parts", "print_results"]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """Row of a table.

    Attributes:
        name: name of the model or baseline.
        kind: "baseline", "model" or "published".
        errors: part -> metric -> value, in the unit of the table.
    """

    name: str
    kind: str
    errors: dict[str, dict[str, float]]


@dataclass(frozen=True)
class TargetResults:
    """Errors of one target.

    Attributes:
        target: name of the field.
        unit: unit of the errors; "1" if there is none.
        rows: baselines, published errors, and the model last.
        sources: sources of the published errors.
    """

    target: str
    unit: str
    rows: list[Row]
    sources: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the results as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TargetResults:
        """Create the results from ``to_dict``."""
        rows = [Row(**row) for row in values["rows"]]
        return cls(values["target"], values["unit"], rows, list(values["sources"]))

    @property
    def model(self) -> Row:
        """Row of the model."""
        return next(row for row in self.rows if row.kind == "model")


def predict_parts(
    model: Model,
    dataset: Dataset,
    parts: Mapping[str, NDArray[np.int64]],
    targets: Sequence[str],
    *,
    device: torch.device,
    batch_size: int = 128,
) -> dict[str, dict[str, tuple[Values, Values]]]:
    """Return predictions and true values in internal units: target -> part -> (prediction, truth).

    Forces and relaxed positions are those of the free atoms, if the data have ``fixed``.

    Args:
        model: model; its dtype is the dtype of the batches.
        dataset: data set.
        parts: name -> indices of structures; empty parts are left out.
        targets: names of fields.
        device: device of the computation.
        batch_size: number of graphs per batch.
    """
    dtype = next(model.parameters()).dtype
    pairs: dict[str, dict[str, tuple[Values, Values]]] = {name: {} for name in targets}
    model = model.to(device).eval()
    for part, indices in parts.items():
        if len(indices) == 0:
            continue
        loader = dataset.loader(indices, batch_size, cutoff=model.cutoff, targets=targets, dtype=dtype, ahead=True)
        collected: dict[str, tuple[list[Values], list[Values]]] = {name: ([], []) for name in targets}
        with torch.no_grad():
            for batch in loader:
                outputs = model(batch.to(device))
                for name, (predictions, truths) in collected.items():
                    predictions.append(free(name, outputs[name], batch).double().cpu().numpy())
                    truths.append(free(name, batch[name], batch).double().cpu().numpy())
        for name, (predictions, truths) in collected.items():
            pairs[name][part] = np.concatenate(predictions), np.concatenate(truths)
    return pairs


def note_ignored_charge(model: Model, dataset: Dataset, console: Console) -> None:
    """Print a warning if structures of the data have a net charge that the model does not use.

    Args:
        model: a model in evaluation mode.
        dataset: data set.
        console: output console.
    """
    if dataset.total_charge is None or not dataset.total_charge.any():
        return
    index = int(np.flatnonzero(dataset.total_charge)[0])
    parameter = next(model.parameters())
    batch = dataset.batch([index], cutoff=model.cutoff, targets=[], dtype=parameter.dtype).to(parameter.device)
    note = ignored_charge(model, batch)
    if note is not None:
        text = f"{dataset.card.name}, structure {index} (counted from 0): {note}"
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)


def compare(
    dataset: Dataset,
    target: str,
    model_name: str,
    predictions: Mapping[str, tuple[Values, Values]],
    baselines: Sequence[Baseline],
    split: str | None = None,
) -> TargetResults:
    """Return the results of one target, in the unit of its card.

    Args:
        dataset: data set with the card.
        target: name of the field.
        model_name: name of the model in the table.
        predictions: part -> (prediction, truth) of the model, in the internal unit.
        baselines: baselines with predictions for the same parts.
        split: name of the split; published errors of other splits are left out.
    """
    if target not in dataset.card.targets:
        raise RecipeError(f"The card of {dataset.card.name} has no target '{target}'.")
    entry = dataset.card.targets[target]
    factor = entry.to_report(target)
    rows = [
        Row(
            baseline.name,
            "baseline",
            {
                part: dict(errors(baseline.predictions[part] * factor, truth * factor))
                for part, (_, truth) in predictions.items()
            },
        )
        for baseline in baselines
    ]
    sources = []
    for published in dataset.card.published:
        matches = published.target == target and published.unit == entry.report and not dataset.sample
        if matches and (published.split in (None, split) or split is None):
            rows += [
                Row(name, "published", {"test": {published.metric: value}}) for name, value in published.values.items()
            ]
            sources += [published.source] if published.source else []
    measured = {
        part: dict(errors(prediction * factor, truth * factor)) for part, (prediction, truth) in predictions.items()
    }
    return TargetResults(target, entry.report, [*rows, Row(model_name, "model", measured)], sources)


def print_results(console: Console, results: TargetResults, dataset: str, sizes: dict[str, int]) -> None:
    """Print the errors of one target: baselines, published errors, and the model last.

    Args:
        console: output console.
        results: results of one target.
        dataset: name of the data set.
        sizes: part -> number of graphs; each part has a group of columns.
    """
    from rich.markup import escape

    metrics = ("MSE", "MAE") if headline(results.target) == "MSE" else ("MAE", "RMSE")
    parts = [part for part in sizes if part in results.model.errors]
    if not parts:
        text = f"{dataset}: the error of {results.target} is unknown: no structures are left for validation and test."
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
        return
    unit = "" if results.unit == "1" else f" [{results.unit}]"
    squared = metric_unit("MSE", results.unit)
    notes = {"MSE": f" [{squared}]"} if squared else {}
    columns = [escape(f"{part}\n{metric}{notes.get(metric, '')}") for part in parts for metric in metrics]
    table = new_table(f"{dataset}: {results.target}{unit}", "", *columns)
    for index, row in enumerate(results.rows):
        name = f"{row.name} (published)" if row.kind == "published" else row.name
        cells = [
            _format(row.errors[part][metric], row.kind) if metric in row.errors.get(part, {}) else ""
            for part in parts
            for metric in metrics
        ]
        last = index + 1 == len(results.rows)
        ends = not last and results.rows[index + 1].kind != row.kind
        table.add_row(name, *cells, style="bold" if row.kind == "model" else "", end_section=ends)
    console.print(table)
    counts = ", ".join(f"{part} {count}" for part, count in sizes.items())
    console.print(f"Structures: {counts}.", highlight=False, style="dim")
    for source in results.sources:
        console.print(f"Published: {source}", highlight=False, style="dim", soft_wrap=True)


def _format(value: float, kind: str) -> str:
    return f"{value:g}" if kind == "published" else format_number(value)  # with the digits of the paper
