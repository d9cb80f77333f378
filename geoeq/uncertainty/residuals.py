"""The errors of a model and what it expects of them, over parts of a data set."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.data import Dataset
from geoeq.fields import field, uncertainty_name
from geoeq.models import LastLayer, Model
from geoeq.training.evaluation.metrics import MOVED, free

__all__ = ["ErrorsMade", "last_layer_rows", "predicted_errors"]

Values = NDArray[np.float64]

_BATCH = 64


@dataclass(frozen=True)
class ErrorsMade:
    """Errors of one quantity, each with its estimate, in the unit inside.

    Of vectors these are components: the estimate of each is that of the norm divided by the root of their number.

    Attributes:
        errors: [K], predicted less true.
        deviations: [K].
    """

    errors: Values
    deviations: Values


def predicted_errors(model: Model, dataset: Dataset, places: NDArray[np.int64], target: str) -> ErrorsMade:
    """Of the structures at ``places``; of forces those of atoms that are free."""
    found: tuple[list[Values], list[Values]] = ([], [])
    for batch in _batches(model, dataset, places, [target]):
        with torch.no_grad():
            outputs = model(batch)
        errors = free(target, outputs[target].double() - batch[target].double(), batch)
        deviations = outputs[uncertainty_name(target)].double()
        if field(target).level == "node" and target in MOVED:
            deviations = free(target, deviations, batch)
        components = errors.flatten(1) if errors.dim() > 1 else errors.unsqueeze(1)
        share = deviations.unsqueeze(1).expand_as(components) / math.sqrt(components.shape[1])
        found[0].append(components.flatten().cpu().numpy())
        found[1].append(share.flatten().cpu().numpy())
    return ErrorsMade(np.concatenate(found[0]), np.concatenate(found[1]))


def last_layer_rows(model: LastLayer, dataset: Dataset, places: NDArray[np.int64]) -> Iterator[tuple[Tensor, Values]]:
    """Features [K, W] of the last layer, float64 on the CPU, and the errors [K] of the target, batch by batch."""
    for batch in _batches(model, dataset, places, [model.target]):
        with torch.no_grad():
            outputs, features = model.features(batch)
        errors = outputs[model.target].double() - batch[model.target].double()
        yield features.cpu(), errors.cpu().numpy()


def _batches(model: Model, dataset: Dataset, places: NDArray[np.int64], targets: Sequence[str]) -> Iterator[Batch]:
    parameter = next(model.parameters())
    loader = dataset.loader(places, _BATCH, cutoff=model.cutoff, targets=targets, dtype=parameter.dtype)
    for batch in loader:
        yield batch.to(parameter.device)
