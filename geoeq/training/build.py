"""The model of a recipe: its heads are made for the targets, and forces by differentiation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoeq.errors import RecipeError, unknown_name
from geoeq.models import Forces, Head, Model, Prior, WithPriors, default_head, from_config
from geoeq.training.parsing import import_class
from geoeq.training.recipe import Recipe

__all__ = ["build_model"]

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
