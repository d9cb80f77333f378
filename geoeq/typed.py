"""Typed settings: turn a plain mapping (YAML, JSON, command line) into frozen dataclasses or constructor arguments.

Every error names the file (or the command line) and the key, says what is wrong and what would be right.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

from geoeq.errors import DataError, GeoeqError, suggestion

__all__ = ["Origin", "differences", "import_object", "join_key", "parse", "parse_arguments"]

T = TypeVar("T")

#: Values in messages are cut short, whatever a file contains.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 100

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where settings come from, for error messages.

    Attributes:
        file: name of the file.
        noun: what the file calls an entry, "key" or "setting".
        error: class of the exceptions.
        keys: dotted key -> other source, such as "command line" or an inherited file; it holds for the keys below it.
    """

    file: str
    noun: str = "key"
    error: type[GeoeqError] = DataError
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def of(self, key: str) -> str:
        """Return the source of a dotted key."""
        while key and key not in self.keys:
            key = key.rpartition("[" if key.endswith("]") else ".")[0]
        return self.keys.get(key, self.file)

    def mistake(self, key: str, text: str) -> GeoeqError:
        """Return the error for a mistake in the entry ``key``."""
        return self.error(f"{self.of(key)}: {text}")

    def wrong(self, key: str, expected: str, value: object) -> GeoeqError:
        """Return the error for a value of the wrong type."""
        return self.mistake(key, f"the {self.noun} '{key or 'file'}' must be {expected}, not {_show(value)}.")


def parse(kind: type[T], value: object, origin: Origin | str, key: str = "") -> T:
    """Read ``value`` as a ``kind``.

    Args:
        kind: a dataclass, str, int, float, bool, Literal, tuple, list, Sequence, dict, Mapping, a union of these, or
            object (anything).
        value: the content of a file, or a part of it. Text that reads as a number is accepted as one (``1e-3``, which
            is text in YAML).
        origin: source of the value, for messages; a text is the name of a file.
        key: dotted key of the value, for messages.

    Raises:
        DataError: a key is unknown or missing, or a value has the wrong type (or ``origin.error``).
    """
    result: T = _parse(kind, value, Origin(origin) if isinstance(origin, str) else origin, key)
    return result


def parse_arguments(function: Callable[..., Any], arguments: object, origin: Origin, key: str) -> dict[str, Any]:
    """Read arguments of a class or function; values are converted where the parameter is annotated with a plain type.

    A value that describes an object (``class_path``) is returned unchanged: it is checked when the object is built.

    Args:
        function: class or function to be called.
        arguments: mapping from parameter names to values.
        origin: source of the arguments, for messages.
        key: dotted key of the arguments, for messages.

    Raises:
        GeoeqError: a name is not a parameter, or a value has the wrong type (``origin.error``).
    """
    if not isinstance(arguments, Mapping):
        raise origin.wrong(key, "a mapping of argument names to values", arguments)
    parameters = list(inspect.signature(function).parameters)
    hints = _hints(function)
    values = {}
    for name, value in arguments.items():
        entry = join_key(key, str(name))
        if name not in parameters:
            text = f"{key}: {function.__name__} has no argument '{name}'.{suggestion(str(name), parameters)}"
            raise origin.mistake(entry, text)
        plain = name in hints and not _describes_object(value)
        values[str(name)] = _parse(hints[name], value, origin, entry) if plain else value
    return values


def _describes_object(value: object) -> bool:
    """Return whether a value is, or contains, an object with a class path."""
    if isinstance(value, Mapping):
        return "class_path" in value or any(map(_describes_object, value.values()))
    return isinstance(value, list | tuple) and any(map(_describes_object, value))


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    if inspect.isclass(function):
        return typing.get_type_hints(inspect.unwrap(vars(function)["__init__"])) if "__init__" in vars(function) else {}
    return typing.get_type_hints(function)


def _parse(kind: Any, value: object, origin: Origin, key: str) -> Any:
    base, arguments = typing.get_origin(kind), typing.get_args(kind)
    if base in (Union, types.UnionType):
        return _parse_union(arguments, value, origin, key)
    if base is Literal:
        for choice in arguments:
            if isinstance(value, int | str) and str(value) == str(choice):
                return choice
        known = suggestion(_REPR.repr(value), map(str, arguments))
        raise origin.mistake(key, f"the {origin.noun} '{key}' cannot be {_show(value)}.{known}")
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, origin, key)
    if inspect.isclass(base) and issubclass(base, Sequence):
        return _parse_sequence(kind, value, origin, key)
    if inspect.isclass(base) and issubclass(base, Mapping):
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise origin.wrong(key, _describe(kind), value)
        return {name: _parse(arguments[1], item, origin, join_key(key, name)) for name, item in value.items()}
    if kind in _WORDS:
        return _parse_scalar(kind, value, origin, key)
    return value  # object, Any, or a class: its constructor judges


def _parse_union(kinds: Iterable[Any], value: object, origin: Origin, key: str) -> Any:
    kinds = list(kinds)
    alternatives = [kind for kind in kinds if kind is not type(None)]
    if value is None and len(alternatives) < len(kinds):
        return None
    if len(alternatives) == 1:
        return _parse(alternatives[0], value, origin, key)
    for kind in sorted(alternatives, key=lambda kind: type(value) is not kind):  # without conversion, if possible
        try:
            return _parse(kind, value, origin, key)
        except origin.error:
            continue
    raise origin.wrong(key, " or ".join(map(_describe, kinds)), value)


def _parse_sequence(kind: Any, value: object, origin: Origin, key: str) -> Any:
    base, arguments = typing.get_origin(kind), typing.get_args(kind)
    fixed = base is tuple and Ellipsis not in arguments
    if not isinstance(value, list | tuple) or (fixed and len(value) != len(arguments)):
        raise origin.wrong(key, _describe(kind), value)
    kinds = arguments if fixed else [arguments[0]] * len(value)
    items = [_parse(inner, item, origin, f"{key}[{i}]") for i, (inner, item) in enumerate(zip(kinds, value))]
    return tuple(items) if base is tuple else items


def _parse_scalar(kind: Any, value: object, origin: Origin, key: str) -> Any:
    if kind in (int, float) and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            raise origin.wrong(key, _WORDS[kind], value) from None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise origin.wrong(key, _WORDS[kind], value)
    return value


def _parse_dataclass(kind: Any, value: object, origin: Origin, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise origin.wrong(key, f"a mapping of {origin.noun}s to values", value)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            text = f"{key or f'the {kind.__name__.lower()}'} has no {origin.noun} '{name}'."
            raise origin.mistake(join_key(key, str(name)), text + suggestion(str(name), fields))
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise origin.mistake(key, f"the {origin.noun} '{join_key(key, name)}' is missing.")
    values = {name: _parse(hints[name], item, origin, join_key(key, name)) for name, item in value.items()}
    try:
        return kind(**values)
    except GeoeqError as error:
        named = [join_key(key, name) for name in values if f"'{name}'" in str(error)]
        raise origin.mistake(named[0] if named else key, f"{key}: {error}" if key else str(error)) from error


def import_object(path: object, origin: Origin | None = None, key: str = "class_path", kind: type = object) -> Any:
    """Import a class (or function) by its dotted path.

    Args:
        path: as in ``geoeq.models.EGNN``; a colon may separate the module, as in ``my_module:my_function``.
        origin: source of the path, for messages.
        key: dotted key of the path, for messages.
        kind: base class of the classes that an error suggests.

    Raises:
        GeoeqError: the module or the object does not exist (``origin.error``, DataError without an origin).
    """
    where = origin or Origin("")
    module_name, separator, name = str(path).rpartition(":" if ":" in str(path) else ".")
    parts = [*module_name.split("."), name]
    if not isinstance(path, str) or not separator or not all(part.isidentifier() for part in parts):
        raise _unimportable(where, key, f"'{key}' must be a dotted path, as in 'geoeq.models.EGNN', not {_show(path)}.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _unimportable(where, key, f"'{module_name}' cannot be imported: {error}.") from error
        raise _unimportable(
            where,
            key,
            f"there is no module '{error.name}' for '{path}'. Your own modules are imported from the folder in which "
            "geoeq is called.",
        ) from error
    except (ImportError, SystemExit) as error:
        raise _unimportable(where, key, f"'{module_name}' cannot be imported: {error!r}.") from error
    if not hasattr(module, name):
        public = {entry: value for entry, value in vars(module).items() if callable(value) and entry[0] != "_"}
        classes = [entry for entry, value in public.items() if inspect.isclass(value) and issubclass(value, kind)]
        noun, known = ("object", public) if kind is object else ("class", classes or public)
        raise _unimportable(where, key, f"the module '{module_name}' has no {noun} '{name}'.{suggestion(name, known)}")
    found = getattr(module, name)
    if not callable(found):
        raise _unimportable(where, key, f"'{path}' is a {type(found).__name__}, not a class or function.")
    return found


def _unimportable(origin: Origin, key: str, text: str) -> GeoeqError:
    return origin.mistake(key, text) if origin.file else origin.error(text[0].upper() + text[1:])


def _describe(kind: Any) -> str:
    """Return a type in words."""
    base, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in _WORDS:
        return _WORDS[kind]
    if base is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if base in (Union, types.UnionType):
        return " or ".join(map(_describe, arguments))
    if base is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} ({', '.join(map(_describe, arguments))})"
    if inspect.isclass(base) and issubclass(base, Mapping):
        return f"a mapping with names as keys (each value {_describe(arguments[1])})"
    if inspect.isclass(base) and issubclass(base, Sequence):
        return f"a list (each item {_describe(arguments[0])})"
    return "a mapping" if dataclasses.is_dataclass(kind) else "anything" if kind in (object, Any) else kind.__name__


def _show(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else _REPR.repr(value)


def join_key(key: str, name: str) -> str:
    """Return the dotted key of the entry ``name`` below ``key``."""
    return f"{key}.{name}" if key else name


def differences(old: Mapping[str, Any], new: Mapping[str, Any], keys: Iterable[str], prefix: str = "") -> list[str]:
    """Describe in which of the keys the settings of an earlier run and of this one differ."""
    lines = []
    for key in sorted(keys):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, set(before) | set(after), f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key} is {before} there and {after} here")
    return lines
