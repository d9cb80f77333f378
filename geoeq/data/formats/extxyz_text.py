"""Text of extended xyz: the pairs of the second line, the columns that it declares, and the structure they describe."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from geoeq.data.containers.text_numbers import to_floats
from geoeq.data.containers.unpack import read_lines
from geoeq.data.formats.atom_types import numbers_of_symbols
from geoeq.data.formats.uniform import atomic_numbers
from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = [
    "STRUCTURE",
    "SYMBOLS",
    "Block",
    "is_periodic",
    "numbers_of",
    "parse_comment",
    "read_blocks",
    "structure_of",
    "values_of_column",
    "values_of_pair",
]

#: key=value, where a value may be in quotes or brackets; or a single word, which is ignored.
_PAIR = re.compile(
    r"""(?P<key>"[^"]*"|[^\s="]+)
        (?:\s*=\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|\{(?P<brace>[^}]*)\}
        |(?P<bracket>\[(?:[^\[\]]|\[[^\[\]]*\])*\])|(?P<plain>[^\s"']*)))?""",
    re.VERBOSE,
)
_BRACKETS = str.maketrans("[],", "   ")
_TRUE, _FALSE = {"T", "TRUE", "1"}, {"F", "FALSE", "0"}
_PLAIN = "species:S:1:pos:R:3"
SYMBOLS, _NUMBERS, _POSITIONS = (
    ("species", "element", "symbols"),
    ("Z", "numbers", "atomic_numbers"),
    ("pos", "positions"),
)
#: Keys and columns that are part of the structure.
STRUCTURE = {"Lattice", "pbc", *SYMBOLS, *_NUMBERS, *_POSITIONS}
#: The keys that describe the structure, which are recognised in any case.
_NAMES = {name.casefold(): name for name in ("Lattice", "Properties", "pbc")}
#: Other names of a cell, whose form differs from program to program.
_CELLS = {"cell", "box", "unit_cell", "cell_vectors"}
_MOST_ATOMS = 10_000_000


class Block(NamedTuple):
    """One structure as text.

    Attributes:
        comment: second line without the cell and the periodic directions, for ASE.
        info: its pairs, except ``Properties``.
        layout: column -> first word and width.
        rows: rows of atoms.
        where: file and index, for messages.
    """

    comment: str
    info: dict[str, str]
    layout: dict[str, tuple[int, int]]
    rows: list[list[str]]
    where: str


def parse_comment(line: str) -> dict[str, str]:
    """Return the pairs in the second line of a structure, as text; single words are ignored.

    Raises:
        ValueError: a key occurs twice.
    """
    pairs = dict[str, str]()
    for match in _PAIR.finditer(line):
        values = [value for name, value in match.groupdict().items() if name != "key" and value is not None]
        key = match["key"].strip('"')
        if values and key in pairs:
            raise ValueError(f"the key '{key}' occurs twice")
        if values:
            pairs[key] = values[0]
    return pairs


def structure_of(block: Block, types: Mapping[int, int], scale: float) -> tuple[Array, Array, Array, Array]:
    """Return atomic numbers [n], positions [n, 3] Å, cell [3, 3] Å and pbc [3] of a structure.

    Args:
        block: structure as text.
        types: type -> atomic number, for files that number the kinds of atoms.
        scale: unit of length of the file in Å.

    Raises:
        DataError: a number or element cannot be read.
    """
    positions = values_of_column(block, _named(block, _POSITIONS)).reshape(-1, 3) * scale
    return numbers_of(block, types), positions, *_lattice(block, scale)


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield the structures of a file as text; an empty line ends the file."""
    source, count, number = read_lines(path), 0, 0
    for first in source:
        where = f"{path}: structure {count} (counted from 0)"
        if not first.strip():
            rest = [line for line in source if line.strip()]
            if rest:
                raise DataError(f"{where} cannot be read: line {number + 1} before it is empty.")
            return
        if not first.strip().isdecimal() or len(first) > 40 or not 0 < int(first) <= _MOST_ATOMS:
            raise DataError(f"{where} cannot be read: line {number + 1} must be a number of atoms, not {first[:40]!r}.")
        atoms = int(first)
        comment = next(source, None)
        rows = [line.split() for line in islice(source, atoms)]
        if comment is None or len(rows) < atoms:
            raise DataError(f"{where} cannot be read: it ends after {len(rows)} of {atoms} atoms.")
        comment = _PAIR.sub(_usual_case, comment)
        try:
            info = parse_comment(comment)
        except ValueError as error:
            raise DataError(f"{where} cannot be read: {error} in its second line.") from error
        layout = _layout(info.pop("Properties", _PLAIN), where)
        width = sum(width for _, width in layout.values())
        for atom, row in enumerate(rows):
            if len(row) < width:
                raise DataError(f"{where} cannot be read: atom {atom} has {len(row)} columns instead of {width}.")
        yield Block(_PAIR.sub(_without_cell, comment), info, layout, rows, where)
        count, number = count + 1, number + 2 + atoms


def _usual_case(match: re.Match[str]) -> str:
    key = match["key"]
    name = _NAMES.get(key.casefold())
    return match[0] if name is None or match[0] == key else name + match[0].removeprefix(key)


def _without_cell(match: re.Match[str]) -> str:
    return "" if match["key"] in ("Lattice", "pbc") else match[0]


def _layout(properties: str, where: str) -> dict[str, tuple[int, int]]:
    words = properties.split(":")
    layout, first = {}, 0
    for name, kind, width in zip(words[::3], words[1::3], words[2::3]):
        if kind not in ("S", "R", "I", "L") or not width.isdecimal() or len(width) > 3 or int(width) == 0:
            raise DataError(f"{where} cannot be read: Properties has '{name}:{kind}:{width}'.")
        if name in _POSITIONS and int(width) != 3:
            raise DataError(f"{where} cannot be read: '{name}' must have 3 columns, not {width}.")
        if name in layout:
            raise DataError(f"{where} cannot be read: Properties has the column '{name}' twice.")
        layout[name] = (first, int(width))
        first += int(width)
    if len(words) % 3 or not layout:
        raise DataError(f"{where} cannot be read: Properties must be name:kind:width:.., not {properties[:80]!r}.")
    return layout


def _named(block: Block, names: Sequence[str]) -> str:
    present = [name for name in names if name in block.layout]
    if not present:
        raise DataError(f"{block.where} cannot be read: it has no column '{names[0]}'.")
    return present[0]


def values_of_column(block: Block, name: str) -> Array:
    """Return the numbers of one column, [n, width].

    Raises:
        DataError: a word is not a number.
    """
    first, width = block.layout[name]
    try:
        return to_floats([row[first : first + width] for row in block.rows])
    except ValueError as error:
        raise DataError(f"{block.where} cannot be read: column '{name}': {error}.") from error


def numbers_of(block: Block, types: Mapping[int, int]) -> Array:
    """Return the atomic numbers [n]; ``types`` are those of ``structure_of``.

    Raises:
        DataError: a word is not an element, or a type without a map.
    """
    symbols = [name for name in SYMBOLS if name in block.layout]
    if not symbols and any(name in block.layout for name in _NUMBERS):
        return atomic_numbers(values_of_column(block, _named(block, _NUMBERS)).reshape(-1), block.where)
    first, _ = block.layout[_named(block, symbols or SYMBOLS)]
    return numbers_of_symbols([row[first] for row in block.rows], types, block.where)


def values_of_pair(block: Block, key: str) -> Array:
    """Return the numbers of one pair.

    Raises:
        DataError: its value is not numbers.
    """
    text = block.info[key]
    try:
        if text.startswith("_JSON"):
            return np.asarray(json.loads(text.removeprefix("_JSON")), dtype=np.float64)
        values = to_floats(text.translate(_BRACKETS).split())
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{block.where} cannot be read: '{key}' must be numbers, not {text[:80]!r}.") from error
    return values


def is_periodic(block: Block) -> bool:
    """Return whether a structure is periodic in any direction.

    Raises:
        DataError: the cell or the periodic directions cannot be read.
    """
    return bool(_lattice(block, 1.0)[1].any())


def _lattice(block: Block, scale: float) -> tuple[Array, Array]:
    """Return the cell [3, 3] in Å and pbc [3]; with a cell but no pbc, all directions are periodic."""
    cell = np.zeros((3, 3))
    other = next((key for key in block.info if key.casefold() in _CELLS), None)
    if other is not None and "Lattice" not in block.info:
        raise DataError(f"{block.where} cannot be read: it has '{other}' but no Lattice; write its vectors as Lattice.")
    if "Lattice" in block.info:
        values = values_of_pair(block, "Lattice")
        if values.size != 9 or not np.isfinite(values).all():
            raise DataError(
                f"{block.where} cannot be read: Lattice must be 9 numbers, not {block.info['Lattice'][:80]!r}."
            )
        cell = values.reshape(3, 3) * scale
    words = block.info.get("pbc", "T T T" if "Lattice" in block.info else "F F F").translate(_BRACKETS).upper().split()
    if len(words) != 3 or not {*words} <= _TRUE | _FALSE:
        raise DataError(
            f'{block.where} cannot be read: pbc must have the form "T T F", not {block.info["pbc"][:40]!r}.'
        )
    return cell, np.array([word in _TRUE for word in words])
