"""What a run works with: the data set, its split, the model and the baselines that a recipe asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from geoeq.data import Dataset, load
from geoeq.data.splits import indices_sha256
from geoeq.environment import describe_environment
from geoeq.errors import DataError, RecipeError, unknown_name
from geoeq.models import Model
from geoeq.resources import import_extra
from geoeq.training.build import build_model
from geoeq.training.evaluation.baselines import Baseline, fit_baselines, parts_of
from geoeq.training.evaluation.metrics import headline, metric_unit
from geoeq.training.losses import Loss
from geoeq.training.parsing import error_context
from geoeq.training.recipe import Recipe

__all__ = ["Job", "prepare_job"]


@dataclass(frozen=True)
class Job:
    """A recipe and all that it names.

    Attributes:
        recipe: the settings.
        dataset: the records.
        split: "train", "valid" and "test" -> places.
        model: with its heads fitted to the training set, on the CPU.
        baselines: target -> guesses, the best last.
        device: where to compute.
    """

    recipe: Recipe
    dataset: Dataset
    split: dict[str, NDArray[np.int64]]
    model: Model
    baselines: dict[str, list[Baseline]]
    device: torch.device

    @property
    def model_name(self) -> str:
        """What tables call the model."""
        return self.model.title

    @property
    def split_name(self) -> str:
        """The name of the split."""
        return self.recipe.split or self.dataset.card.default_split

    @property
    def sizes(self) -> dict[str, int]:
        """Part -> number of structures."""
        return {part: len(places) for part, places in self.split.items()}

    @property
    def units(self) -> dict[str, str]:
        """Target -> unit of its headline metric; empty for none."""
        targets = self.dataset.card.targets
        return {name: metric_unit(headline(name), targets[name].report) for name in self.recipe.targets}

    @property
    def factors(self) -> dict[str, float]:
        """Target -> factor from the unit inside to that of the report."""
        return {name: self.dataset.card.targets[name].to_report(name) for name in self.recipe.targets}

    def loss(self) -> Loss:
        """The loss, in units of the best baseline's error on the training set, in the norm of the loss."""
        norm = self.recipe.loss.name
        scales = {name: min(one.scales[norm] for one in guesses) or 1.0 for name, guesses in self.baselines.items()}
        atoms = np.diff(self.dataset.ptr)[self.split["train"]]
        return Loss(self.recipe.loss, scales, float(atoms.mean()))

    def loader_options(self) -> dict[str, Any]:
        """How batches are made for this model."""
        dtype = next(self.model.parameters()).dtype
        targets, workers = self.recipe.targets, self.recipe.workers
        return {"cutoff": self.model.cutoff, "targets": targets, "dtype": dtype, "workers": workers, "ahead": True}

    def meta(self) -> dict[str, Any]:
        """What a checkpoint says about its origin."""
        card = self.dataset.card
        return {
            "data": {
                "name": self.recipe.dataset,
                "sample": self.recipe.sample,
                "split": self.split_name,
                "split_sha256": indices_sha256(self.split),
                "sizes": self.sizes,
            },
            "targets": self.recipe.targets,
            "report": {name: card.targets[name].report for name in self.recipe.targets},
            "recipe": self.recipe.to_dict(),
            "environment": describe_environment(),
        }


@dataclass(frozen=True)
class _TrainingSet:
    """The structures at some places, with targets in float64, of which one part is in memory."""

    dataset: Dataset
    parts: list[NDArray[np.int64]]
    targets: list[str]

    def __iter__(self) -> Iterator[Data]:
        for places in self.parts:
            yield self.dataset.batch(places, targets=self.targets, dtype=torch.float64)


def prepare_job(recipe: Recipe, file: str) -> Job:
    """Find and build what ``recipe`` names.

    Args:
        recipe: the settings.
        file: the name of its file, for messages.

    Raises:
        RecipeError: a setting names nothing that there is, or cannot work here; the message gives file and section.
    """
    with error_context(file, "dataset"):
        dataset = load(recipe.dataset, sample=recipe.sample)
    with error_context(file, "target"):
        for name in recipe.targets:
            if name not in dataset.targets or name not in dataset.card.targets:
                said = " ".join(["", *(note for note in dataset.notes if name in note)])
                raise RecipeError(unknown_name(f"target of {recipe.dataset}", name, dataset.card.targets) + said)
    with error_context(file, "loss"):
        for name in recipe.loss.weights:
            if name not in recipe.targets:
                raise RecipeError(unknown_name("target of this recipe", name, recipe.targets))
    with error_context(file, "split"):
        split = dataset.split(recipe.split)
        if len(split["train"]) == 0:
            raise DataError("This split has no training set.")
    with error_context(file, "device"):
        if recipe.device == "cuda" and not torch.cuda.is_available():
            raise RecipeError("This machine has no CUDA GPU that torch can use; say device: auto or cpu.")
    cuda = recipe.device == "cuda" or (recipe.device == "auto" and torch.cuda.is_available())

    import_extra("lightning", "train").seed_everything(recipe.seed, verbose=False)
    with error_context(file, "model"):
        model = build_model(recipe).to(torch.float64 if recipe.precision == "64" else torch.float32)
        model.fit_heads(_TrainingSet(dataset, parts_of(dataset, split["train"]), recipe.targets))
    with error_context(file, "loss"):
        for name in recipe.loss.auxiliary:
            if name not in model.auxiliary_losses:
                raise RecipeError(unknown_name("auxiliary loss of this model", name, model.auxiliary_losses))
    baselines = {name: fit_baselines(dataset, split, name) for name in recipe.targets}
    return Job(recipe, dataset, split, model, baselines, torch.device("cuda" if cuda else "cpu"))
