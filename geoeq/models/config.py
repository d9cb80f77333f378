"""Objects that can be written down as JSON and built again: ``{"class_path": ..., "init_args": {...}}``."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from geoeq.errors import RecipeError, unknown_name

__all__ = ["Configurable", "from_config"]

_Object = TypeVar("_Object", bound="Configurable")


class Configurable:
    """Remembers the arguments it was made with; ``config()`` gives them back.

    Arguments must be JSON values, other Configurables, or lists, tuples and dicts of those.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" not in cls.__dict__:
            return
        original = cls.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def remember(self: Configurable, *args: Any, **kwargs: Any) -> None:
            if "arguments" not in vars(self):  # the outermost constructor of a chain comes first
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                arguments = dict(bound.arguments)
                arguments.pop(next(iter(signature.parameters)))
                object.__setattr__(self, "arguments", arguments)
            original(self, *args, **kwargs)

        cls.__init__ = remember  # type: ignore[method-assign, assignment]

    arguments: dict[str, Any]

    def config(self) -> dict[str, Any]:
        """Class path and arguments, as JSON values."""
        cls = type(self)
        arguments = {name: _plain(value, f"{cls.__name__}.{name}") for name, value in self.arguments.items()}
        return {"class_path": _class_path(cls), "init_args": arguments}


def _class_path(cls: type) -> str:
    """Return the path of a class in the highest package that exports it, so that moving its file changes nothing.

    It is ``geoeq.models.EGNN``, wherever below ``geoeq.models`` the file of the class lies.
    """
    parts = cls.__module__.split(".")
    for depth in range(1, len(parts)):
        package = ".".join(parts[:depth])
        if getattr(importlib.import_module(package), cls.__name__, None) is cls:
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, Configurable):
        return value.config()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry, where) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, where) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RecipeError(f"{where} is a {type(value).__name__}, which a checkpoint cannot hold; use numbers and strings.")


def from_config(config: Mapping[str, Any], kind: type[_Object]) -> _Object:
    """Build the object that ``config`` describes, and those inside it.

    Nothing but subclasses of ``Configurable`` is ever called, whatever the class path says.

    Args:
        config: class_path (a dotted path) and init_args (a dict; may be missing).
        kind: what it must be, such as Model.

    Raises:
        RecipeError: the path leads nowhere or to another kind, or an argument is unknown, missing or wrong.
    """
    extra = set(config) - {"class_path", "init_args"}
    if "class_path" not in config or extra:
        raise RecipeError(
            f"A {kind.__name__} is written as class_path and init_args; found: {', '.join(sorted(config)) or 'none'}."
        )
    cls = _find(str(config["class_path"]), kind)
    given = config.get("init_args") or {}
    known = list(inspect.signature(cls).parameters)
    for name in given:
        if name not in known:
            raise RecipeError(f"{cls.__name__}: {unknown_name('argument', name, known)}")
    arguments = {name: _build(value) for name, value in given.items()}
    try:
        return cls(**arguments)
    except TypeError as error:
        raise RecipeError(f"{cls.__name__}: {error}") from error


def _build(value: Any) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        return from_config(value, Configurable)
    if isinstance(value, list | tuple):
        return [_build(entry) for entry in value]
    return value


def _find(path: str, kind: type[_Object]) -> type[_Object]:
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise RecipeError(f"'{path}' is not a class path; write it with its module, such as geoeq.models.EGNN.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise RecipeError(f"class_path '{path}': cannot import '{module_name}' ({error}).") from error
    found = getattr(module, name, None)
    if found is None:
        public = [entry for entry in dir(module) if isinstance(getattr(module, entry), type) and entry[0] != "_"]
        raise RecipeError(f"class_path '{path}': {unknown_name('class', name, public)}")
    if not (inspect.isclass(found) and issubclass(found, kind)):
        raise RecipeError(f"class_path '{path}' is not a {kind.__name__}.")
    if inspect.isabstract(found):
        raise RecipeError(f"class_path '{path}' is abstract; name one of its subclasses.")
    return found
