"""Recipe files: find one by name, list those that come with geoeq, and read one into a ``Recipe``."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from geoeq.data import load_card
from geoeq.documents import parse_yaml, read_yaml, shorten
from geoeq.errors import GeoeqError, RecipeError, suggestion, unknown_name
from geoeq.files import check_regular
from geoeq.models import Model
from geoeq.resources import share
from geoeq.training.recipe import BATCH_LIMITS, ModelSettings, Recipe, setting_hint
from geoeq.typed import Origin, import_object, join_key, parse, parse_arguments

__all__ = [
    "ShippedRecipe",
    "error_context",
    "find_recipe",
    "find_recipes",
    "import_class",
    "read_recipe",
    "recipe_origin",
    "shipped_recipes",
]

COMMAND_LINE = "command line"


@contextlib.contextmanager
def error_context(file: str | Origin, key: str = "") -> Iterator[None]:
    """Prefix the text of errors: ``with error_context("egnn.yaml", "optimizer")`` adds ``egnn.yaml: optimizer:``.

    Args:
        file: name of the file; or the origin of the settings, which may be the command line or another file.
        key: key of the setting.
    """
    try:
        yield
    except GeoeqError as error:
        source = file.of(key) if isinstance(file, Origin) else file
        prefix = f"{source}: {key}" if key else source
        raise RecipeError(f"{prefix}: {error}") from error


def find_recipe(name: str) -> Path:
    """Return the file of a recipe.

    Args:
        name: path of a YAML file, or the name of a recipe that comes with geoeq, such as ``qm9/egnn``.

    Raises:
        RecipeError: there is no such recipe; the message lists those that come with geoeq.
    """
    path = Path(name)
    check_regular(path, RecipeError)
    if path.is_file():
        return path
    shipped = _shipped_files()
    if _short(name) in {field.name for field in dataclasses.fields(Recipe)}:
        raise RecipeError(f"There is no recipe '{name}'. {setting_hint(name)}")
    if _short(name) not in shipped:
        raise RecipeError(f"There is no file '{name}'. {unknown_name('recipe', _short(name), shipped)}")
    return shipped[_short(name)]


def find_recipes(pattern: str) -> list[Path]:
    """Return the files of the recipes that match a pattern, sorted by name.

    Args:
        pattern: name or path of a recipe, or a pattern such as ``nbody/*-quick``; it is matched against files first,
            then against the names of the recipes that come with geoeq, from any folder.

    Raises:
        RecipeError: nothing matches.
    """
    if not set(pattern) & set("*?["):
        return [find_recipe(pattern)]
    base = Path(Path(pattern).anchor)
    local = [path for path in base.glob(str(Path(pattern).relative_to(base))) if path.suffix == ".yaml"]
    shipped = _shipped_files()
    matches = sorted(local) or [path for name, path in shipped.items() if fnmatch(name, _short(pattern))]
    if not matches:
        folders = ", ".join(sorted({f"'{name.partition('/')[0]}/*'" for name in shipped}))
        raise RecipeError(f"No recipe matches '{pattern}'. Recipes that come with geoeq are in {folders}.")
    return matches


def _shipped_files() -> dict[str, Path]:
    return dict(sorted((f"{file.parent.name}/{file.stem}", file) for file in share("recipes").glob("*/*.yaml")))


def _short(name: str) -> str:
    return name.removeprefix("./").removeprefix("recipes/").removesuffix(".yaml")


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that comes with geoeq, in words, for lists.

    Attributes:
        name: name for the command line, such as "qm7/egnn".
        file: the YAML file.
        task: data set and targets, such as "qm7: atomization_energy".
        model: class of the network, with its wrapper if it has one, such as "FAENet in FrameAveraging".
        size: structures in the training set and epochs, such as "5,700 structures, 36 epochs".
        time: measured training time with its hardware; empty if it has not been measured.
    """

    name: str
    file: Path
    task: str
    model: str
    size: str
    time: str


def shipped_recipes() -> list[ShippedRecipe]:
    """Return the recipes that come with geoeq, sorted by name."""
    return [_describe(name, file, read_recipe(file)) for name, file in _shipped_files().items()]


def _describe(name: str, file: Path, recipe: Recipe) -> ShippedRecipe:
    card = load_card(recipe.dataset)
    structures = card.splits[recipe.split or card.default_split].sizes["train"]
    task = f"{recipe.dataset}: {', '.join(recipe.targets)}"
    size = f"{structures:,} structures, {recipe.epochs:,} epochs"
    return ShippedRecipe(
        name, file, task, _network(recipe.model.class_path, recipe.model.init_args), size, recipe.about.time
    )


def _network(class_path: str, arguments: Mapping[str, Any]) -> str:
    name, inner = class_path.rpartition(".")[2], arguments.get("model")
    if isinstance(inner, Mapping) and "class_path" in inner:
        return f"{_network(inner['class_path'], inner.get('init_args') or {})} in {name}"
    return name


def read_recipe(
    path: str | Path, overrides: Sequence[str] = (), notify: Callable[[str], object] = lambda line: None
) -> Recipe:
    """Read a recipe, with the recipes that it inherits, and apply overrides.

    With ``inherit: other.yaml`` (relative to the file, or the name of a shipped recipe such as ``qm7/egnn``) a recipe
    starts from another one: mappings are merged key by key, lists and values replace the inherited ones, and null sets
    null. A new ``class_path`` drops the inherited ``init_args``; notes (``about``) are not inherited.

    Args:
        path: a YAML file.
        overrides: ``key=value`` pairs such as ``optimizer.lr=1e-3``; values are YAML.
        notify: called with a line when an override replaces another setting of the recipe.

    Raises:
        RecipeError: a setting is unknown or missing, has the wrong type or an impossible value, or an inherited file is
            missing or inherits this one. The message gives the file (or "command line"), the key, and what would be
            right.
    """
    path = Path(path)
    sources: dict[str, str] = {}
    settings = _load(path, (), sources)
    overridden = set()
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise RecipeError(f"{COMMAND_LINE}: '{pair}' is not a setting. {setting_hint(pair.lstrip('-'))}")
        try:
            _set(settings, key.split("."), parse_yaml(text, f"{COMMAND_LINE}: {key}", RecipeError))
        except RecipeError as error:
            raise RecipeError(f"{COMMAND_LINE}: {key}: '{shorten(text)}' is not a YAML value.") from error
        overridden.add(key)
        sources[key] = COMMAND_LINE
    _resolve_batch_limits(settings, overridden, path.name, notify)
    _resolve_epochs(settings, overridden, path.name, notify)
    origin = Origin(path.name, "setting", RecipeError, sources)
    recipe = parse(Recipe, settings, origin)
    entries = {"model": recipe.model, **{f"priors[{i}]": prior for i, prior in enumerate(recipe.priors or [])}}
    for key, entry in entries.items():
        entry.init_args.update(_read_arguments(entry, origin, key))
    return recipe


def recipe_origin(path: Path, overrides: Sequence[str] = ()) -> Origin:
    """Return where the settings of a recipe come from: its file, those that it inherits, or the command line."""
    sources: dict[str, str] = {}
    if path.is_file():
        _load(path, (), sources)
    sources |= {pair.partition("=")[0]: COMMAND_LINE for pair in overrides}
    return Origin(path.name, "setting", RecipeError, sources)


def _load(path: Path, heirs: tuple[Path, ...], sources: dict[str, str]) -> dict[str, Any]:
    """Read a YAML file over the one that it inherits, and record in ``sources`` which file each key is from.

    Args:
        path: the file.
        heirs: files that inherit it, the requested one first.
        sources: dotted key -> name of the file, filled in.
    """
    settings = read_yaml(path, RecipeError)
    if not isinstance(settings, dict):
        raise RecipeError(f"{path.name}: a recipe consists of 'setting: value' lines, and this file has none.")
    parent, inherited = settings.pop("inherit", None), {}
    if parent is not None:
        chain = (*heirs, path.resolve())
        file = (path.parent / str(parent)).resolve()
        if not file.is_file():
            file = _shipped_files().get(_short(str(parent)), file).resolve()
        if file in chain:
            cycle = " -> ".join(link.name for link in (*chain[chain.index(file) :], file))
            raise RecipeError(f"{path.name}: inherit: the recipes inherit each other in a circle: {cycle}.")
        if not file.is_file():
            siblings = [other.name for other in path.parent.glob("*.yaml") if other.name != path.name]
            known = [*siblings, *(_shipped_files() if "/" in str(parent) else ())]
            raise RecipeError(
                f"{path.name}: inherit: there is no file '{parent}' (relative to {path.name}) and no shipped recipe."
                f"{suggestion(str(parent), known)}"
            )
        inherited = _load(file, chain, sources)
        inherited.pop("about", None)  # it describes that recipe only
    return _merge(inherited, settings, path.name, sources)


def _merge(
    base: dict[str, Any], over: Mapping[str, Any], file: str, sources: dict[str, str], key: str = ""
) -> dict[str, Any]:
    """Return ``base`` with the entries of ``over``, mapping by mapping."""
    if "class_path" in over and over["class_path"] != base.get("class_path"):
        base = {name: value for name, value in base.items() if name != "init_args"}
    merged = dict(base)
    for name, value in over.items():
        entry = join_key(key, str(name))
        sources[entry] = file
        inner = base.get(name)
        if isinstance(value, Mapping):
            value = _merge(inner if isinstance(inner, dict) else {}, value, file, sources, entry)
        merged[name] = value
    return merged


def _set(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(settings.get(key), dict):
            settings[key] = {}
        settings = settings[key]
    settings[keys[-1]] = value


def _resolve_batch_limits(
    settings: dict[str, Any], overridden: set[str], file: str, notify: Callable[[str], object]
) -> None:
    """Let an overridden batch limit replace the one in the recipe: only one of them may be set."""
    limits = [name for name in BATCH_LIMITS if settings.get(name) is not None]
    for name in limits:
        chosen = [other for other in limits if other in overridden]
        if chosen and name not in overridden:
            notify(f"{chosen[0]}={settings[chosen[0]]} replaces {name}: {settings[name]} in {file}.")
            settings[name] = None


def _resolve_epochs(settings: dict[str, Any], overridden: set[str], file: str, notify: Callable[[str], object]) -> None:
    """Let overridden epochs replace the epochs of the sample in the recipe, if the sample is used."""
    epochs = settings.get("sample_epochs")
    if settings.get("sample") is True and epochs is not None and overridden & {"epochs", "sample_epochs"} == {"epochs"}:
        notify(f"epochs={settings['epochs']} replaces sample_epochs: {epochs} in {file}.")
        settings["sample_epochs"] = None


def _read_arguments(entry: ModelSettings, origin: Origin, key: str) -> dict[str, Any]:
    cls = import_class(entry.class_path, origin, f"{key}.class_path")
    return parse_arguments(cls, entry.init_args, origin, f"{key}.init_args")


def import_class(class_path: str, origin: Origin | None = None, key: str = "class_path") -> type:
    """Import the class of a dotted path.

    Raises:
        RecipeError: the module or the class does not exist; the message gives the closest name.
    """
    cls: type = import_object(class_path, origin or Origin("", "setting", RecipeError), key, Model)
    return cls
