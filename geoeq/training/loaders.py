"""Batches for the trainer: the share of this process, resumed where an interrupted run stopped."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from geoeq.data.sampler import BatchSampler, Share
from geoeq.training.distributed import ProcessGroup
from geoeq.training.setup import Experiment

__all__ = ["Epochs", "train_loader", "validation_loader"]


class Epochs:
    """Loader that hides its length from the trainer: epochs may have different numbers of batches.

    Args:
        loader: loader of batches, with a ``BatchSampler``.

    Attributes:
        sampler: sampler of the loader; the trainer sets its epoch.
    """

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self._loader = loader
        self.sampler: BatchSampler = loader.sampler  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)


def train_loader(experiment: Experiment, processes: ProcessGroup) -> Epochs:
    """Return the shuffled training batches of this process."""
    recipe = experiment.recipe
    options = experiment.loader_options() | recipe.batch_limit
    share = Share(processes.rank, processes.size, recipe.accumulate)
    indices = experiment.split["train"]
    return Epochs(experiment.dataset.loader(indices, shuffle=True, seed=recipe.seed, share=share, **options))


def validation_loader(experiment: Experiment, processes: ProcessGroup) -> DataLoader[Batch] | None:
    """Return the validation batches of this process; None if there is no validation set."""
    indices = experiment.split["valid"]
    if len(indices) == 0:
        return None
    options = experiment.loader_options() | experiment.recipe.batch_limit
    return experiment.dataset.loader(indices, share=Share(processes.rank, processes.size), **options)
