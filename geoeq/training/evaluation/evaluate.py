"""Evaluate a saved model on the data set and split of its training."""

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
from geoeq.training.evaluation.results import (
    TargetResults,
    compare,
    note_ignored_charge,
    predict_parts,
    print_results,
)
from geoeq.trust import Trust

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["evaluate", "trained_on"]


def trained_on(
    run: str | Path, meta: Mapping[str, Any], *, trust: Trust = False
) -> tuple[Dataset, dict[str, NDArray[np.int64]]]:
    """Return the data set of a saved model, and its split: part -> indices of structures.

    Args:
        run: folder of a run or checkpoint, for messages.
        meta: metadata of its checkpoint.
        trust: modules outside geoeq that the card may name, as for ``load_checkpoint``.

    Raises:
        CheckpointError: the checkpoint does not name its data.
        DataError: the data set does not exist, its split differs from that of the training, or its card names a reader
            that is not trusted.
    """
    run = Path(run)
    data = meta.get("data")
    if not isinstance(data, dict) or "targets" not in meta:
        raise CheckpointError(f"The checkpoint in '{run}' does not name its training data.")
    dataset = load(data["name"], sample=data["sample"], trust=trust)
    split = dataset.split(data["split"])
    if indices_sha256(split) != data["split_sha256"]:
        raise DataError(
            f"The split '{data['split']}' of {data['name']} has changed since the model was trained: its test set may "
            "contain structures of the training set. Restore the card or the data."
        )
    return dataset, split


def evaluate(
    run: str | Path, console: Console, part: str | None = None, *, trust: Trust = False
) -> list[TargetResults]:
    """Print the errors of a saved model, beside baselines and published errors.

    Args:
        run: folder of a run or checkpoint.
        console: output console.
        part: "train", "valid" or "test"; None for the last two.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Raises:
        CheckpointError: the checkpoint cannot be read, or does not name its data.
        DataError: the data set does not exist, or its split differs from that of the training.
        RecipeError: the split has no such part.
    """
    run = Path(run)
    import_extra("rich", "plots")
    model, meta = load_checkpoint(run, trust=trust)
    dataset, split = trained_on(run, meta, trust=trust)
    data = meta["data"]
    if part is not None and part not in split:
        raise RecipeError(unknown_name("part of the split", part, split))
    parts = {name: split[name] for name in ((part,) if part else ("valid", "test")) if len(split[name])}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predicted = predict_parts(model, dataset, parts, meta["targets"], device=device)
    note_ignored_charge(model.to(device).eval(), dataset, console)
    results = []
    for target, predictions in predicted.items():
        baselines = fit_baselines(dataset, split, target)
        results.append(compare(dataset, target, model.title, predictions, baselines, data["split"]))
        print_results(console, results[-1], data["name"], {name: len(indices) for name, indices in parts.items()})
    for name, indices in parts.items():
        metrics = catalyst_metrics(dataset, indices, {target: pairs[name] for target, pairs in predicted.items()})
        if metrics:
            text = ", ".join(f"{metric} {value:.4g} {unit}".strip() for metric, (value, unit) in metrics.items())
            console.print(f"{name}, free atoms: {text}.", highlight=False)
    return results
