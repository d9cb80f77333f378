"""What a run works with: the data set, its split, the model and the baselines that a recipe asks for."""

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
from geoeq.errors import DataError, RecipeError, unknown_name
from geoeq.models import Forces, Head, Model, Prior, WithPriors, default_head, from_config
from geoeq.resources import import_extra
from geoeq.training.evaluation.baselines import Baseline, fit_baselines, parts_of
from geoeq.training.evaluation.metrics import headline, metric_unit
from geoeq.training.losses import Loss
from geoeq.training.parsing import error_context, import_class
from geoeq.training.recipe import Recipe

__all__ = ["Experiment", "build_experiment", "build_model"]


@dataclass(frozen=True)
class Experiment:
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


def build_experiment(recipe: Recipe, file: str) -> Experiment:
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
    return Experiment(recipe, dataset, split, model, baselines, torch.device("cuda" if cuda else "cpu"))


#: what ``Forces`` gives.
DERIVED = ("forces", "stress")


def build_model(recipe: Recipe) -> Model:
    """The network that a recipe names, with heads for its targets; as a potential where forces or stress are targets.

    Raises:
        RecipeError: nothing gives a target, or forces are to be derivatives of an energy that is not learnt.
    """
    settings = _with_priors(recipe)
    derived = [name for name in DERIVED if name in recipe.targets]
    if derived and recipe.forces == "gradient":
        if "energy" not in recipe.targets:
            raise RecipeError(
                f"{' and '.join(derived)} are derivatives of the energy, which is not a target: say target: [energy, "
                f"{', '.join(derived)}] (loss.weights.energy=0 leaves its errors out), or forces: direct."
            )
        if not issubclass(import_class(recipe.model.class_path), Forces):
            settings = {"class_path": "geoeq.models.Forces", "init_args": {"model": settings}}
        settings["init_args"] = {"stress": "stress" in derived, **settings["init_args"]}
    model = from_config(_with_heads(settings, recipe.targets), Model, trust=True)  # type: ignore[type-abstract]
    for name in recipe.targets:
        if name not in model.fields:
            raise RecipeError(f"No head gives the target. {unknown_name('output', name, model.fields)}")
    return model


def _with_priors(recipe: Recipe) -> dict[str, Any]:
    """Class path and arguments of the network, within ``WithPriors`` where the recipe names any, and that in Forces."""
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
    """Class path and arguments of a model with heads for the targets; those of a wrapper in the model inside.

    Args:
        settings: class path and arguments.
        targets: names of outputs.
        needed: heads of which the priors read the outputs, for a network that is written without heads.
    """
    arguments = dict(settings.get("init_args") or {})
    inner = arguments.get("model")
    if isinstance(inner, Mapping) and "class_path" in inner:
        wrapper = import_class(settings["class_path"])
        wanted = [name for name in targets if not (issubclass(wrapper, Forces) and name in DERIVED)]
        if issubclass(wrapper, WithPriors):
            priors = [from_config(prior, Prior, trust=True) for prior in arguments.get("priors") or []]  # type: ignore[type-abstract]
            needed = [*needed, *(head for prior in priors for head in prior.heads())]
        return {**settings, "init_args": {**arguments, "model": _with_heads(inner, wanted, needed)}}
    given = {name: head for head in needed for name in head.names}
    default = [given[name] if name in given else default_head(name) for name in dict.fromkeys([*targets, *given])]
    heads = arguments["heads"] if "heads" in arguments else [head.config() for head in default]
    named = [entry for head in heads for entry in _named(head, targets)]
    return {**settings, "init_args": {**arguments, "heads": named}}


def _named(head: Any, targets: list[str]) -> list[Any]:
    """A head that has no name is made once for each target."""
    given = head.get("init_args") or {} if isinstance(head, dict) else {"name": None}
    if "name" in given:
        return [head]
    return [{**head, "init_args": {"name": name, **given}} for name in targets]
