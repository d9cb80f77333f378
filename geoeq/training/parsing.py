"""YAML, and key=value from the command line, to a Recipe; every mistake is named with its file and section."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from geoeq.errors import GeoeqError, RecipeError, unknown_name
from geoeq.models import Model
from geoeq.resources import import_extra, share
from geoeq.training.recipe import BATCH_LIMITS, Recipe

__all__ = ["error_context", "find_recipe", "import_class", "read_recipe"]

Settings = TypeVar("Settings")
COMMAND_LINE = "command line"


@contextlib.contextmanager
def error_context(*where: str) -> Iterator[None]:
    """Prefix the text of errors: ``with error_context("egnn.yaml", "optimizer")`` adds ``egnn.yaml: optimizer:``."""
    try:
        yield
    except GeoeqError as error:
        place = ": ".join(part for part in where if part)
        raise RecipeError(f"{place}: {error}") from error


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or ``qm9/egnn`` among those that come with geoeq.

    Raises:
        RecipeError: there is none; the message gives those that there are.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = {f"{file.parent.name}/{file.stem}": file for file in sorted(share("recipes").glob("*/*.yaml"))}
    wanted = name.removesuffix(".yaml").removeprefix("recipes/")
    if wanted not in shipped:
        raise RecipeError(f"There is no file '{name}'. {unknown_name('recipe', wanted, shipped)}")
    return shipped[wanted]


def read_recipe(
    path: Path, overrides: Sequence[str] = (), notify: Callable[[str], object] = lambda line: None
) -> Recipe:
    """The recipe in ``path``, with ``key=value`` pairs put over it.

    Args:
        path: a YAML file.
        overrides: such as ``optimizer.lr=1e-3``; values are YAML.
        notify: called with a line where one of these takes the place of another setting.

    Raises:
        RecipeError: an unknown or missing setting, a wrong type or an impossible value. The message gives the file
            (or "command line"), the section, and what would be right.
    """
    yaml = import_extra("yaml", "train")
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path.name}: This is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise RecipeError(f"{path.name}: A recipe is 'setting: value' lines, and this file holds none.")

    given = set()
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise RecipeError(f"{COMMAND_LINE}: '{pair}' is not a setting. Write it as in optimizer.lr=1e-3.")
        try:
            _put(settings, key.split("."), yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise RecipeError(f"{COMMAND_LINE}: {key}: '{text}' is not a YAML value.") from error
        given.add(key)
    _displace(settings, given, path.name, notify)
    return _read(Recipe, settings, "", path.name, given)


def _displace(settings: dict[str, Any], given: set[str], file: str, notify: Callable[[str], object]) -> None:
    """Let one way to say how large a batch is, where it is given over a recipe, take the place of the recipe's."""
    told = [name for name in BATCH_LIMITS if settings.get(name) is not None]
    for name in told:
        chosen = [other for other in told if other in given]
        if chosen and name not in given:
            notify(f"{chosen[0]}={settings[chosen[0]]} takes the place of {name}: {settings[name]} in {file}.")
            settings[name] = None


def _put(settings: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        if not isinstance(settings.get(key), dict):
            settings[key] = {}
        settings = settings[key]
    settings[keys[-1]] = value


def _read(cls: type[Settings], settings: Mapping[str, Any], section: str, file: str, given: set[str]) -> Settings:
    """An instance of the dataclass ``cls`` from a mapping."""
    hints = get_type_hints(cls)
    known = {entry.name: entry for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{section}.{key}" if section else str(key)
        where = COMMAND_LINE if name in given else file
        with error_context(where, section):
            if key not in known:
                raise RecipeError(unknown_name("setting", str(key), known))
            listed = _listed(hints[key]) if isinstance(value, list) else None
            sections = value if listed else [value] if dataclasses.is_dataclass(hints[key]) else []
            for entry in sections:
                if not isinstance(entry, Mapping):
                    raise RecipeError(f"'{key}' must be a section of settings, not {_show(entry)}.")
        if listed:
            values[key] = [_read(listed, entry, f"{name}[{i}]", file, given) for i, entry in enumerate(value)]
        elif dataclasses.is_dataclass(hints[key]):
            values[key] = _read(hints[key], value, name, file, given)
        elif key == "init_args":
            values[key] = _read_arguments(settings.get("class_path"), value, name, where, given)
        else:
            with error_context(where, section):
                kind = section if key == "name" else str(key)
                values[key] = _typed(str(key), hints[key], value, kind)
                if key == "class_path":
                    import_class(value)
    with error_context(file, section):
        for key, entry in known.items():
            required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
            if required and key not in values:
                raise RecipeError(f"The setting '{key}' is missing.")
        return cls(**values)


def _listed(hint: Any) -> Any:
    """The dataclass of which ``hint`` is a list (or null), or None."""
    found = [get_args(kind)[0] for kind in (hint, *get_args(hint)) if get_origin(kind) is list]
    return found[0] if found and dataclasses.is_dataclass(found[0]) else None


def _read_arguments(class_path: Any, arguments: Any, section: str, file: str, given: set[str]) -> dict[str, Any]:
    """The arguments of a class, checked against the signature of its constructor."""
    with error_context(file, section.rpartition(".")[0]):
        cls = import_class(class_path)
        if not isinstance(arguments, Mapping):
            raise RecipeError(f"'init_args' must be a section of arguments, not {_show(arguments)}.")
    parameters = list(inspect.signature(cls).parameters)
    hints = get_type_hints(inspect.unwrap(vars(cls)["__init__"])) if "__init__" in vars(cls) else {}
    values = {}
    for key, value in arguments.items():
        with error_context(COMMAND_LINE if f"{section}.{key}" in given else file, section):
            if key not in parameters:
                raise RecipeError(unknown_name(f"argument of {cls.__name__}", str(key), parameters))
            typed = key in hints and "class_path" not in str(value)  # a class in it is checked when it is built
            values[str(key)] = _typed(str(key), hints[key], value, str(key)) if typed else value
    return values


def import_class(class_path: Any) -> type:
    """The class of a dotted path.

    Raises:
        RecipeError: the module or the class is not there; the message gives the closest name.
    """
    module_name, dot, name = str(class_path).rpartition(".")
    if not isinstance(class_path, str) or not dot:
        raise RecipeError(f"'class_path' must be as in 'geoeq.models.EGNN', not {_show(class_path)}.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise RecipeError(f"'{module_name}' cannot be imported: {error}.") from error
        raise RecipeError(
            f"There is no module '{error.name}' for the class '{class_path}'. "
            "A module of your own is found in the folder in which geoeq is called."
        ) from error
    found = getattr(module, name, None)
    if not inspect.isclass(found):
        classes = {key: value for key, value in vars(module).items() if inspect.isclass(value) and key[0] != "_"}
        models = [key for key, value in classes.items() if issubclass(value, Model) and value is not Model]
        raise RecipeError(f"In {module_name}: {unknown_name('class', name, models or classes)}")
    return found


def _typed(name: str, hint: Any, value: Any, kind: str) -> Any:
    """``value`` as the type ``hint``, as jsonargparse reads it.

    Raises:
        RecipeError: it is of another type.
    """
    jsonargparse = import_extra("jsonargparse", "train")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
    except ValueError:  # a type of somebody's own class that cannot be read from text: its constructor will judge
        return value
    if get_origin(hint) is Literal and isinstance(value, int | str):
        if str(value) not in get_args(hint):
            raise RecipeError(unknown_name(kind, str(value), map(str, get_args(hint))))
        return str(value)
    try:
        if value is None and type(None) not in get_args(hint):
            raise ValueError("null")
        parsed = parser.parse_object({"value": value})
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise RecipeError(f"'{name}' must be {_describe(hint)}, not {_show(value)}.") from error
    return parsed.value


def _describe(hint: Any) -> str:
    """A type in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in words:
        return words[hint]
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} ({', '.join(map(_describe, arguments))})"
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return f"a section of settings (each {_describe(arguments[1])})"
    if inspect.isclass(origin) and issubclass(origin, Sequence):
        return f"a list (of {_describe(arguments[0])})" if arguments else "a list"
    return str(getattr(hint, "__name__", hint))


def _show(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
