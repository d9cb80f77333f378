"""Errors of a model on parts of a data set, each with its estimated standard deviation."""

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

__all__ = ["Residuals", "last_layer_rows", "predicted_errors"]

Values = NDArray[np.float64]

_BATCH = 64


@dataclass(frozen=True)
class Residuals:
    """Errors of one quantity with their estimates, in the internal unit.

    For vectors, errors are components; the estimate of each is that of the norm divided by the square root of their
    number.

    Attributes:
        errors: prediction minus truth, [K].
        deviations: estimated standard deviations, [K].
    """

    errors: Values
    deviations: Values

    def scaled(self, factor: float) -> Residuals:
        """Return the same in another unit."""
        return Residuals(self.errors * factor, self.deviations * factor)


def predicted_errors(model: Model, dataset: Dataset, indices: NDArray[np.int64], target: str) -> Residuals:
    """Return the errors for these structures; errors of forces are those of free atoms."""
    all_errors: list[Values] = []
    all_deviations: list[Values] = []
    for batch in _batches(model, dataset, indices, [target]):
        with torch.no_grad():
            outputs = model(batch)
        errors = free(target, outputs[target].double() - batch[target].double(), batch)
        deviations = outputs[uncertainty_name(target)].double()
        if field(target).level == "node" and target in MOVED:
            deviations = free(target, deviations, batch)
        components = errors.flatten(1) if errors.dim() > 1 else errors.unsqueeze(1)
        share = deviations.unsqueeze(1).expand_as(components) / math.sqrt(components.shape[1])
        all_errors.append(components.flatten().cpu().numpy())
        all_deviations.append(share.flatten().cpu().numpy())
    return Residuals(np.concatenate(all_errors), np.concatenate(all_deviations))


def last_layer_rows(model: LastLayer, dataset: Dataset, indices: NDArray[np.int64]) -> Iterator[tuple[Tensor, Values]]:
    """Yield features [K, W] of the last layer, float64 on the CPU, and the errors [K] of the target, per batch."""
    for batch in _batches(model, dataset, indices, [model.target]):
        with torch.no_grad():
            outputs, features = model.features(batch)
        errors = outputs[model.target].double() - batch[model.target].double()
        yield features.cpu(), errors.cpu().numpy()


def _batches(model: Model, dataset: Dataset, indices: NDArray[np.int64], targets: Sequence[str]) -> Iterator[Batch]:
    parameter = next(model.parameters())
    loader = dataset.loader(indices, _BATCH, cutoff=model.cutoff, targets=targets, dtype=parameter.dtype)
    for batch in loader:
        yield batch.to(parameter.device)
