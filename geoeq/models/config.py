"""Objects described by a class path and arguments: ``{"class_path": ..., "init_args": {...}}``."""

from __future__ import annotations

import functools
import importlib
import inspect
import reprlib
from collections.abc import Mapping
from typing import Any, TypeVar

from geoeq.documents import shorten
from geoeq.errors import CheckpointError, GeoeqError, RecipeError, unknown_name
from geoeq.trust import Trust, check_trusted
from geoeq.typed import Origin, import_object

__all__ = ["Configurable", "from_config"]

_Object = TypeVar("_Object", bound="Configurable")

#: Errors of a constructor whose arguments have the wrong type or impossible values.
_CONSTRUCTOR_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)


class Configurable:
    """Base class of objects that record their constructor arguments; ``config()`` returns them as JSON values.

    Arguments must be JSON values, other Configurables, or lists, tuples and dicts of these.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__init__" not in cls.__dict__:
            return
        original = cls.__init__
        signature = inspect.signature(original)

        @functools.wraps(original)
        def recorded(self: Configurable, *args: Any, **kwargs: Any) -> None:
            if "arguments" not in vars(self):  # the constructor of the subclass runs before those of its bases
                bound = signature.bind(self, *args, **kwargs)
                bound.apply_defaults()
                arguments = dict(bound.arguments)
                arguments.pop(next(iter(signature.parameters)))
                object.__setattr__(self, "arguments", arguments)
            original(self, *args, **kwargs)

        cls.__init__ = recorded  # type: ignore[method-assign, assignment]

    arguments: dict[str, Any]

    def config(self) -> dict[str, Any]:
        """Return class path and arguments as JSON values."""
        cls = type(self)
        arguments = {name: _to_json(value, f"{cls.__name__}.{name}") for name, value in self.arguments.items()}
        return {"class_path": _class_path(cls), "init_args": arguments}


def _class_path(cls: type) -> str:
    """Return the path of a class in the highest package that exports it, so that moving its file changes nothing.

    EGNN has the path ``geoeq.models.EGNN``, wherever its file lies below ``geoeq/models``.
    """
    parts = cls.__module__.split(".")
    for depth in range(1, len(parts)):
        package = ".".join(parts[:depth])
        if getattr(importlib.import_module(package), cls.__name__, None) is cls:
            return f"{package}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _to_json(value: Any, where: str) -> Any:
    if isinstance(value, Configurable):
        return value.config()
    if isinstance(value, Mapping):
        return {str(key): _to_json(entry, where) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(entry, where) for entry in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RecipeError(f"{where} is a {type(value).__name__}, which a checkpoint cannot hold; use numbers and strings.")


def from_config(config: Mapping[str, Any], kind: type[_Object], *, trust: Trust = False) -> _Object:
    """Build the object that ``config`` describes, including the objects among its arguments.

    Only subclasses of ``Configurable`` are ever called, whatever the class path says.

    Args:
        config: class_path (a dotted path) and init_args (a dict, optional).
        kind: required base class, such as Model.
        trust: True, or names of modules outside geoeq whose classes may be imported and run. Modules that are already
            imported are allowed.

    Raises:
        RecipeError: the class does not exist or is not of this kind, or an argument is unknown, missing or wrong.
        CheckpointError: the class is not part of geoeq, and not allowed by ``trust``.
    """
    found = sorted(config) if isinstance(config, Mapping) else [type(config).__name__]
    if not {"class_path"} <= {*found} <= {"class_path", "init_args"}:
        raise RecipeError(
            f"A {kind.__name__} is written as class_path and init_args; found: {shorten(', '.join(found)) or 'none'}."
        )
    cls = _import_class(str(config["class_path"]), kind, trust)
    settings = config.get("init_args") or {}
    if not isinstance(settings, Mapping):
        raise RecipeError(f"{cls.__name__}: init_args must be a mapping of arguments, not {reprlib.repr(settings)}.")
    known = list(inspect.signature(cls).parameters)
    for name in settings:
        if name not in known:
            raise RecipeError(f"{cls.__name__}: {unknown_name('argument', name, known)}")
    arguments = {name: _from_json(value, trust) for name, value in settings.items()}
    try:
        return cls(**arguments)
    except GeoeqError:
        raise
    except _CONSTRUCTOR_ERRORS as error:
        reason = str(error) or type(error).__name__  # a MemoryError has no text
        raise RecipeError(f"{cls.__name__}: it cannot be built with these arguments: {reason}") from error


def _from_json(value: Any, trust: Trust) -> Any:
    if isinstance(value, Mapping) and "class_path" in value:
        return from_config(value, Configurable, trust=trust)
    if isinstance(value, list | tuple):
        return [_from_json(entry, trust) for entry in value]
    return value


def _import_class(path: str, kind: type[_Object], trust: Trust) -> type[_Object]:
    check_trusted(path, trust, CheckpointError, f"class_path '{path}'")
    cls = import_object(path, Origin("", error=RecipeError), kind=kind)
    if not (inspect.isclass(cls) and issubclass(cls, kind)):
        raise RecipeError(f"class_path '{path}' is not a {kind.__name__}.")
    if inspect.isabstract(cls):
        raise RecipeError(f"class_path '{path}' is abstract; name one of its subclasses.")
    return cls
