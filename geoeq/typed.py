"""A plain mapping, as YAML gives it, turned into frozen dataclasses, with errors that name the key."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from geoeq.errors import DataError, unknown_name

__all__ = ["differences", "parse"]

T = TypeVar("T")

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "nothing"}


def parse(kind: type[T], value: object, where: str, key: str = "") -> T:
    """``value`` as a ``kind``: a dataclass, str, int, float, bool, tuple[X, ...], dict[str, X], X | None or object.

    Args:
        kind: the type that is wanted.
        value: what the file holds.
        where: the file, for messages.
        key: the place in the file, for messages.

    Raises:
        DataError: a key is unknown or missing, or a value is of the wrong type.
    """
    result: T = _parse(kind, value, where, key)
    return result


def _parse(kind: Any, value: object, where: str, key: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is object:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return _parse(inner, value, where, key)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(kind, value, where, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, key, "a list", value)
        return tuple(_parse(arguments[0], item, where, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise _wrong(where, key, "a mapping with names as keys", value)
        return {name: _parse(arguments[1], item, where, _join(key, name)) for name, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _wrong(where, key, _WORDS[kind], value)
    return value


def _parse_dataclass(kind: Any, value: object, where: str, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(where, key, "a mapping", value)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            raise DataError(f"{where}: {f'{key}: ' if key else ''}{unknown_name('key', str(name), fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in value:
            raise DataError(f"{where}: the key '{_join(key, name)}' is missing.")
    return kind(**{name: _parse(hints[name], item, where, _join(key, name)) for name, item in value.items()})


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _wrong(where: str, key: str, wanted: str, value: object) -> DataError:
    return DataError(f"{where}: the key '{key or 'file'}' should be {wanted}, not {value!r}.")


def differences(old: dict[str, Any], new: dict[str, Any], keys: set[str], prefix: str = "") -> list[str]:
    """In which of the keys two settings differ, in words: those of an earlier run, and those of this one."""
    found = []
    for key in sorted(keys):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, set(before) | set(after), f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} is {before} there and {after} here")
    return found
