"""Set up an experiment: the data set, its split, the model with its heads, and the baselines of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Data

from geoeq.data import Dataset, load
from geoeq.data.splits import indices_sha256
from geoeq.environment import describe_environment
from geoeq.errors import DataError, RecipeError, check_name, unknown_name
from geoeq.models import Forces, Head, Model, Prior, WithPriors, default_head, from_config
from geoeq.resources import import_extra
from geoeq.training.evaluation.baselines import Baseline, fit_baselines, parts_of
from geoeq.training.evaluation.metrics import headline, metric_unit
from geoeq.training.losses import Loss
from geoeq.training.parsing import error_context, import_class
from geoeq.training.recipe import Recipe
from geoeq.typed import Origin

__all__ = ["Experiment", "build_experiment", "build_model"]


@dataclass(frozen=True)
class Experiment:
    """A recipe with everything it names.

    Attributes:
        recipe: settings of the run.
        dataset: the data set.
        split: "train", "valid" and "test" -> indices of structures.
        model: model with heads fitted to the training set, on the CPU.
        baselines: target -> baselines, the best last.
        device: device of the training.
    """

    recipe: Recipe
    dataset: Dataset
    split: dict[str, NDArray[np.int64]]
    model: Model
    baselines: dict[str, list[Baseline]]
    device: torch.device

    @property
    def model_name(self) -> str:
        """Name of the model in tables."""
        return self.model.title

    @property
    def split_name(self) -> str:
        """Name of the split."""
        return self.recipe.split or self.dataset.card.default_split

    @property
    def sizes(self) -> dict[str, int]:
        """Part -> number of structures."""
        return {part: len(indices) for part, indices in self.split.items()}

    @property
    def units(self) -> dict[str, str]:
        """Target -> unit of its headline metric; empty if it has none."""
        targets = self.dataset.card.targets
        return {name: metric_unit(headline(name), targets[name].report) for name in self.recipe.targets}

    @property
    def factors(self) -> dict[str, float]:
        """Target -> factor from the internal unit to the unit of the report."""
        return {name: self.dataset.card.targets[name].to_report(name) for name in self.recipe.targets}

    def loss(self) -> Loss:
        """Return the loss, in units of the error of the best baseline on the training set, in the norm of the loss."""
        norm = self.recipe.loss.name
        scales = {
            name: min(entry.scales[norm] for entry in baselines) or 1.0 for name, baselines in self.baselines.items()
        }
        atoms = np.diff(self.dataset.ptr)[self.split["train"]]
        return Loss(self.recipe.loss, scales, float(atoms.mean()))

    def loader_options(self) -> dict[str, Any]:
        """Return the options of loaders for this model."""
        dtype = next(self.model.parameters()).dtype
        targets, workers = self.recipe.targets, self.recipe.workers
        return {"cutoff": self.model.cutoff, "targets": targets, "dtype": dtype, "workers": workers, "ahead": True}

    def meta(self) -> dict[str, Any]:
        """Return the origin of the model: data, recipe and environment, for its checkpoint."""
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
    """Structures with targets in float64, of which one part at a time is in memory."""

    dataset: Dataset
    parts: list[NDArray[np.int64]]
    targets: list[str]

    def __iter__(self) -> Iterator[Data]:
        for indices in self.parts:
            yield self.dataset.batch(indices, targets=self.targets, dtype=torch.float64)


def build_experiment(recipe: Recipe, file: str | Origin) -> Experiment:
    """Load the data set and build the model of a recipe.

    Args:
        recipe: settings of the run.
        file: name of the recipe's file, or the origin of its settings, for messages.

    Raises:
        RecipeError: a setting names something unknown, or cannot work here; the message gives file and section.
    """
    with error_context(file, "dataset"):
        dataset = load(recipe.dataset, sample=recipe.sample, trust=True)  # as the class paths of the recipe
    with error_context(file, "target"):
        for name in recipe.targets:
            if name not in dataset.targets or name not in dataset.card.targets:
                notes = " ".join(["", *(note for note in dataset.notes if name in note)])
                raise RecipeError(unknown_name(f"target of {recipe.dataset}", name, dataset.card.targets) + notes)
    with error_context(file, "loss"):
        for name in recipe.loss.weights:
            check_name("target of this recipe", name, recipe.targets, RecipeError)
    with error_context(file, "split"):
        split = dataset.split(recipe.split)
        if len(split["train"]) == 0:
            raise DataError("this split has no training set.")
    with error_context(file, "device"):
        if recipe.device == "cuda" and not torch.cuda.is_available():
            raise RecipeError("torch finds no CUDA GPU on this machine; use device: auto or cpu.")
    cuda = recipe.device == "cuda" or (recipe.device == "auto" and torch.cuda.is_available())

    import_extra("lightning", "train").seed_everything(recipe.seed, verbose=False)
    with error_context(file, "model"):
        model = build_model(recipe).to(torch.float64 if recipe.precision == "64" else torch.float32)
        model.fit_heads(_TrainingSet(dataset, parts_of(dataset, split["train"]), recipe.targets))
    with error_context(file, "loss"):
        for name in recipe.loss.auxiliary:
            check_name("auxiliary loss of this model", name, model.auxiliary_losses, RecipeError)
    baselines = {name: fit_baselines(dataset, split, name) for name in recipe.targets}
    return Experiment(recipe, dataset, split, model, baselines, torch.device("cuda" if cuda else "cpu"))


#: Outputs of ``Forces``.
DERIVED = ("forces", "stress")


def build_model(recipe: Recipe) -> Model:
    """Build the network of a recipe with heads for its targets, and as a potential if forces or stress are targets.

    Raises:
        RecipeError: a target has no head, or forces are derivatives of an energy that is not a target.
    """
    settings = _with_priors(recipe)
    derived = [name for name in DERIVED if name in recipe.targets]
    if derived and recipe.forces == "gradient":
        if "energy" not in recipe.targets:
            raise RecipeError(
                f"{' and '.join(derived)} are derivatives of the energy, which is not a target. Use target: [energy, "
                f"{', '.join(derived)}] (loss.weights.energy=0 ignores its errors), or forces: direct."
            )
        if not issubclass(import_class(recipe.model.class_path), Forces):
            settings = {"class_path": "geoeq.models.Forces", "init_args": {"model": settings}}
        settings["init_args"] = {"stress": "stress" in derived, **settings["init_args"]}
    model = from_config(_with_heads(settings, recipe.targets), Model, trust=True)  # type: ignore[type-abstract]
    for name in recipe.targets:
        if name not in model.fields:
            raise RecipeError(f"No head predicts the target. {unknown_name('output', name, model.fields)}")
    return model


def _with_priors(recipe: Recipe) -> dict[str, Any]:
    """Return class path and arguments of the network, wrapped in ``WithPriors`` (inside Forces) if there are priors."""
    settings: dict[str, Any] = {"class_path": recipe.model.class_path, "init_args": recipe.model.init_args}
    if not recipe.priors:
        return settings
    inside, outside = settings, issubclass(import_class(recipe.model.class_path), Forces)
    if outside and "model" in recipe.model.init_args:
        inside = recipe.model.init_args["model"]
    priors = [{"class_path": prior.class_path, "init_args": prior.init_args} for prior in recipe.priors]
    wrapped = {"class_path": "geoeq.models.WithPriors", "init_args": {"model": inside, "priors": priors}}
    return {**settings, "init_args": {**recipe.model.init_args, "model": wrapped}} if outside else wrapped


def _with_heads(settings: Mapping[str, Any], targets: list[str], needed: Sequence[Head] = ()) -> dict[str, Any]:
    """Return class path and arguments of a model with heads for the targets; a wrapper has them in its inner model.

    Args:
        settings: class path and arguments of the model.
        targets: names of outputs.
        needed: heads whose outputs the priors read, for a network that is specified without heads.
    """
    arguments = dict(settings.get("init_args") or {})
    inner = arguments.get("model")
    if isinstance(inner, Mapping) and "class_path" in inner:
        wrapper = import_class(settings["class_path"])
        remaining = [name for name in targets if not (issubclass(wrapper, Forces) and name in DERIVED)]
        if issubclass(wrapper, WithPriors):
            priors = [from_config(prior, Prior, trust=True) for prior in arguments.get("priors") or []]  # type: ignore[type-abstract]
            needed = [*needed, *(head for prior in priors for head in prior.heads())]
        return {**settings, "init_args": {**arguments, "model": _with_heads(inner, remaining, needed)}}
    required = {name: head for head in needed for name in head.names}
    names = dict.fromkeys([*targets, *required])
    default = [required[name] if name in required else default_head(name) for name in names]
    heads = arguments["heads"] if "heads" in arguments else [head.config() for head in default]
    heads = [entry for head in heads for entry in _named(head, targets)]
    return {**settings, "init_args": {**arguments, "heads": heads}}


def _named(head: Any, targets: list[str]) -> list[Any]:
    """Return the head, or one head per target if it has no name."""
    arguments = head.get("init_args") or {} if isinstance(head, dict) else {"name": None}
    if "name" in arguments:
        return [head]
    return [{**head, "init_args": {"name": name, **arguments}} for name in targets]
