"""The errors of a saved model, on the data set and split that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data import Dataset, load
from geoeq.data.splits import indices_sha256
from geoeq.errors import CheckpointError, DataError, RecipeError, unknown_name
from geoeq.models.checkpoint import load_checkpoint
from geoeq.resources import import_extra
from geoeq.training.evaluation.baselines import fit_baselines
from geoeq.training.evaluation.catalyst_metrics import catalyst_metrics
from geoeq.training.evaluation.results import TargetResults, compare, predict_parts

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["evaluate", "trained_on"]


def trained_on(run: Path, meta: Mapping[str, Any]) -> tuple[Dataset, dict[str, NDArray[np.int64]]]:
    """The data set of a saved model, and its split: part -> places.

    Args:
        run: the folder of a run, or of a checkpoint, for messages.
        meta: what its checkpoint says.

    Raises:
        CheckpointError: the checkpoint says nothing of its data.
        DataError: the data set is not there, or is divided in another way than it was in training.
    """
    data = meta.get("data")
    if not isinstance(data, dict) or "targets" not in meta:
        raise CheckpointError(f"The checkpoint in '{run}' does not say what it was trained on.")
    dataset = load(data["name"], sample=data["sample"])
    split = dataset.split(data["split"])
    if indices_sha256(split) != data["split_sha256"]:
        raise DataError(
            f"The split '{data['split']}' of {data['name']} is not the one that the model was trained with: "
            "its test set may hold structures of the training set. Restore the card or the data of that time."
        )
    return dataset, split


def evaluate(run: Path, console: Console, part: str | None = None, *, trust: bool = False) -> list[TargetResults]:
    """Print the table of a saved model.

    Args:
        run: the folder of a run, or of a checkpoint.
        console: for the table.
        part: "train", "valid" or "test"; None for the last two.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Raises:
        CheckpointError: the checkpoint cannot be read, or says nothing of its data.
        DataError: the data set is not there, or is divided in another way than it was in training.
        RecipeError: there is no such part.
    """
    import_extra("rich", "train")
    from geoeq.training.evaluation.results import print_results

    model, meta = load_checkpoint(run, trust=trust)
    dataset, split = trained_on(run, meta)
    data = meta["data"]
    if part is not None and part not in split:
        raise RecipeError(unknown_name("part of the split", part, split))
    parts = {name: split[name] for name in ((part,) if part else ("valid", "test")) if len(split[name])}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = predict_parts(model, dataset, parts, meta["targets"], device=device)
    results = []
    for target, predictions in found.items():
        baselines = fit_baselines(dataset, split, target)
        results.append(compare(dataset, target, model.title, predictions, baselines, data["split"]))
        print_results(console, results[-1], data["name"], {name: len(places) for name, places in parts.items()})
    for name, places in parts.items():
        metrics = catalyst_metrics(dataset, places, {target: pairs[name] for target, pairs in found.items()})
        if metrics:
            told = ", ".join(f"{metric} {value:.4g} {unit}".strip() for metric, (value, unit) in metrics.items())
            console.print(f"{name}, of the atoms that are free: {told}.", highlight=False)
    return results
