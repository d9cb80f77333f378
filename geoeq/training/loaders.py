"""Batches for the trainer: those of this process, from where a killed run stopped."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from geoeq.data.sampler import BatchSampler, Share
from geoeq.training.distributed import ProcessGroup
from geoeq.training.setup import Experiment

__all__ = ["Epochs", "check_loader", "train_loader"]


class Epochs:
    """A loader of which no length is known to the trainer: epochs may have different numbers of batches.

    Args:
        loader: of batches, with a ``BatchSampler``.

    Attributes:
        sampler: that of the loader; the trainer tells it the epoch.
    """

    def __init__(self, loader: DataLoader[Batch]) -> None:
        self._loader = loader
        self.sampler: BatchSampler = loader.sampler  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._loader)


def train_loader(experiment: Experiment, processes: ProcessGroup) -> Epochs:
    """The batches of this process to train on, shuffled."""
    recipe = experiment.recipe
    share = Share(processes.rank, processes.size, recipe.accumulate)
    options = experiment.loader_options()
    return Epochs(
        experiment.dataset.loader(
            experiment.split["train"], **recipe.batch_limit, shuffle=True, seed=recipe.seed, share=share, **options
        )
    )


def check_loader(experiment: Experiment, processes: ProcessGroup) -> DataLoader[Batch] | None:
    """The batches of this process to validate with; None if there are none."""
    if len(experiment.split["valid"]) == 0:
        return None
    share = Share(processes.rank, processes.size)
    return experiment.dataset.loader(
        experiment.split["valid"], **experiment.recipe.batch_limit, share=share, **experiment.loader_options()
    )
