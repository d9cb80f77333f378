"""YAML and JSON files of bounded size, depth and number of values; anything else is an error that names the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoeq.errors import DataError, GeoeqError
from geoeq.files import check_regular

if TYPE_CHECKING:
    from yaml import MappingNode, Node

__all__ = ["parse_json", "parse_yaml", "read_json", "read_text", "read_yaml", "shorten"]

#: Largest sizes in bytes, and the deepest nesting. The largest YAML file of geoeq has about 10 000 bytes.
_MOST_YAML, _MOST_TEXT, _DEEPEST = 1 << 20, 1 << 26, 100

#: Largest number of values in a YAML file, in which an alias counts as the values it stands for.
_MOST_VALUES = 100_000

#: Longest part of a file that a message quotes.
_LONGEST = 200

#: Errors of PyYAML's constructors, as for the date 2001-02-30 or for "!!bool x", and of Python for too many digits.
_VALUE_ERRORS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class _LimitError(Exception):
    """A document is larger or deeper than it may be, or contradicts itself."""


def read_yaml(path: Path, error: type[GeoeqError] = DataError, where: str = "") -> Any:
    """Return the content of a YAML file.

    Args:
        path: path of the file.
        error: class of the exceptions.
        where: name of the file, for messages; the last part of the path if empty.

    Raises:
        GeoeqError: the file is missing, is a pipe or device, is not UTF-8 or not YAML, has a key twice, or is larger or
            nested more deeply than any file of settings.
    """
    where = where or path.name
    return parse_yaml(read_text(path, error, where, _MOST_YAML), where, error)


def read_json(path: Path, error: type[GeoeqError] = DataError) -> Any:
    """Return the content of a JSON file.

    Args:
        path: path of the file.
        error: class of the exceptions.

    Raises:
        GeoeqError: the file is missing, is a pipe or device, is not UTF-8 or not JSON, has a key twice, is larger than
            64 MiB, or is nested more than 100 deep.
    """
    return parse_json(read_text(path, error), str(path), error)


def parse_yaml(text: str, where: str, error: type[GeoeqError] = DataError) -> Any:
    """Return the content of a text in YAML; ``where`` is its source, for messages."""
    import yaml
    from yaml.constructor import ConstructorError

    class Loader(yaml.SafeLoader):
        """A loader that counts the values, those behind aliases included, before it builds them."""

        depth = 0

        def compose_node(self, parent: Node | None, index: int) -> Node | None:
            self.depth += 1
            if self.depth > _DEEPEST:
                raise _LimitError(f"it is nested more than {_DEEPEST} deep")
            node: Node | None = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def compose_mapping_node(self, anchor: Any) -> MappingNode:
            node: MappingNode = super().compose_mapping_node(anchor)
            found = set[tuple[str, str]]()
            for key, _ in node.value:  # PyYAML would keep the last value of a repeated key
                if isinstance(key.value, str) and (key.tag, key.value) in found:
                    raise ConstructorError(None, None, f"the key '{shorten(key.value)}' occurs twice", key.start_mark)
                if isinstance(key.value, str):
                    found.add((key.tag, key.value))
            return node

    if len(text) > _MOST_YAML:
        raise error(f"{where}: it has {len(text)} characters; at most {_MOST_YAML} are read.")
    loader: Loader | None = None
    try:
        loader = Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _count_values(root, {})
        return loader.construct_document(root)
    except _LimitError as fault:
        raise error(f"{where}: {fault}. Do not trust this file.") from None
    except yaml.YAMLError as fault:
        raise error(f"{where}: this is not YAML: {shorten(' '.join(str(fault).split()))}") from fault
    except _VALUE_ERRORS as fault:
        raise error(f"{where}: it has a value that is invalid in YAML: {shorten(str(fault))}") from fault
    finally:
        if loader is not None:
            loader.dispose()


def _count_values(node: Node, known: dict[int, int]) -> int:
    """Return the number of values below a node; ``known`` has those of nodes that aliases refer to again."""
    if known.get(id(node), 1) == 0:
        raise _LimitError("it has an alias that refers to itself")
    if id(node) not in known:
        known[id(node)] = 0
        total = 1 + sum(_count_values(child, known) for child in _children(node))
        if total > _MOST_VALUES:
            raise _LimitError(f"it has more than {_MOST_VALUES} values, those that its aliases repeat included")
        known[id(node)] = total
    return known[id(node)]


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node.value, str):
        return
    for child in node.value:
        yield from child if isinstance(child, tuple) else (child,)


def parse_json(text: str | bytes, where: str, error: type[GeoeqError] = DataError) -> Any:
    """Return the content of a text in JSON; ``where`` is its source, for messages."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise error(f"{where}: it is nested more than {_DEEPEST} deep. Do not trust this file.") from None
    except ValueError as fault:
        raise error(f"{where} is truncated or altered: it is not JSON ({shorten(str(fault))}).") from fault
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return value
    raise error(f"{where}: it is nested more than {_DEEPEST} deep. Do not trust this file.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a mapping of JSON; of a key that occurs twice, Python's parser would keep the last value."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return mapping


def read_text(path: Path, error: type[GeoeqError] = DataError, where: str = "", most: int = _MOST_TEXT) -> str:
    """Return the content of a text file.

    Args:
        path: path of the file.
        error: class of the exceptions.
        where: name of the file, for messages; its path if empty.
        most: largest size in bytes.

    Raises:
        GeoeqError: the file is missing, is a pipe or device, is not UTF-8, or is larger than ``most``.
    """
    where = where or str(path)
    check_regular(path, error)
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise error(f"{where}: it has more than {most} bytes, which is more than such a file needs.")
        return content.decode("utf-8-sig")
    except FileNotFoundError as fault:
        raise error(f"There is no file {path}.") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{where}: this is not a text file in UTF-8: {fault}.") from fault
    except OSError as fault:
        raise error(f"{where}: it cannot be read ({fault.strerror}).") from fault


def shorten(text: str) -> str:
    """Return a text that is short enough for a message."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
