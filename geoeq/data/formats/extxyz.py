"""Extended xyz: for each structure a line of key=value pairs, and the columns that it declares."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from geoeq.data.containers.unpack import read_lines
from geoeq.data.formats.isolated import FreeAtoms, is_free_atom
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.quantities import Key, Survey, choose_keys, column_of, columns, is_of_nodes
from geoeq.data.preparation.chunks import Frame, chunk_frames
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError
from geoeq.fields import FIELDS

__all__ = ["ExtxyzReader", "parse_comment"]

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
_SYMBOLS, _NUMBERS, _POSITIONS = (
    ("species", "element", "symbols"),
    ("Z", "numbers", "atomic_numbers"),
    ("pos", "positions"),
)
_STRUCTURE = {"Lattice", "pbc", *_SYMBOLS, *_NUMBERS, *_POSITIONS}
_MOST_ATOMS = 10_000_000


class _Block(NamedTuple):
    """One structure as text: pairs, column -> (first word, width), rows of atoms, and file and index for messages."""

    info: dict[str, str]
    layout: dict[str, tuple[int, int]]
    rows: list[list[str]]
    where: str


class ExtxyzReader(KeyedReader):
    """Reader of extended xyz files, plain or compressed (gz, bz2, xz).

    The columns are the fields whose keys are specified or detected, in the units of ASE. Free atoms, marked by
    ``config_type=IsolatedAtom``, are left out. If there is one for each element, there is a column
    ``atomization_energy``: the energy minus that of the free atoms.

    Args:
        keys: field (or virial) -> key in the file, or null to skip the quantity; see ``KeyedReader``.
        length: unit of positions and cells.
        order: order of the six components of a stress or virial.
    """

    version: ClassVar[int] = 2

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Count structures, keys and elements."""
        graphs, nodes, elements = Counter[str](), Counter[str](), set[int]()
        counts = dict.fromkeys(files, 0)
        free: list[_Block] = []
        periodic = False
        for file, path in files.items():
            for block in _blocks(path):
                if is_free_atom(len(block.rows), block.info.get("config_type")):
                    free.append(block)
                    continue
                counts[file] += 1
                graphs.update(block.info.keys() - _STRUCTURE)
                nodes.update(block.layout.keys() - _STRUCTURE)
                elements.update(np.unique(_numbers(block)).tolist())
                periodic = periodic or bool(_lattice(block, 1.0)[1].any())
        where, total = ", ".join(map(str, files.values())), sum(counts.values())
        if not total:
            raise DataError(f"{where}: it contains no structures" + (" except free atoms." if free else "."))
        keys, notes = choose_keys(self.keys, graphs, nodes, total, where)
        notes += [f"'{key}' is not used: all structures weigh the same." for key in graphs if key.endswith("weight")]
        self._periodic = periodic
        self._atoms = FreeAtoms({})
        units = {column_of(name): FIELDS[column_of(name)].unit for name in keys}
        if free and "energy" in keys:
            self._atoms = FreeAtoms(dict(self._free_atom(block, keys["energy"]) for block in free))
            notes.append(self._atoms.describe(sorted(elements)))
            if elements <= self._atoms.energies.keys():
                units["atomization_energy"] = FIELDS["atomization_energy"].unit
        elif free:
            notes.append(f"{len(free)} free atoms are left out.")
        return Survey(keys, units, counts, notes)

    def read(self, files: Mapping[str, Path]) -> Iterator[Records]:
        """Read the structures of all files, in order.

        Raises:
            DataError: a file is truncated or altered, or a key is missing or ambiguous; the message gives file and
                structure, counted from 0.
        """
        survey = self.survey(files)
        yield from chunk_frames(self._frames(files, survey))

    def _frames(self, files: Mapping[str, Path], survey: Survey) -> Iterator[Frame]:
        for path in files.values():
            for block in _blocks(path):
                if not is_free_atom(len(block.rows), block.info.get("config_type")):
                    yield self._frame(block, survey)

    def _frame(self, block: _Block, survey: Survey) -> Frame:
        numbers = _numbers(block)
        cell, pbc = _lattice(block, self.scale)
        values = {
            key.name: _column(block, key.name) if is_of_nodes(name) else _values(block, key.name)
            for name, key in survey.keys.items()
            if is_of_nodes(name) or key.name in block.info
        }
        of_graph, of_nodes = columns(survey.keys, values, (), (len(numbers),), cell, block.where, self.order)
        if "atomization_energy" in survey.units:
            of_graph["atomization_energy"] = self._atoms.atomization_energy(of_graph["energy"], numbers)
        return Frame(
            positions=_column(block, _named(block, _POSITIONS)).reshape(-1, 3) * self.scale,
            numbers=numbers,
            of_graph=of_graph,
            of_nodes=of_nodes,
            cell=cell if self._periodic else None,
            pbc=pbc if self._periodic else None,
            where=block.where,
        )

    def _free_atom(self, block: _Block, energy: Key) -> tuple[int, float]:
        if energy.name not in block.info:
            raise DataError(f"{block.where}: this free atom lacks the key '{energy.name}' of the energy.")
        of_graph, _ = columns(
            {"energy": energy}, {energy.name: _values(block, energy.name)}, (), (1,), None, block.where
        )
        return int(_numbers(block)[0]), float(of_graph["energy"])


def parse_comment(line: str) -> dict[str, str]:
    """Return the pairs in the second line of a structure, as text; single words are ignored."""
    pairs = {}
    for match in _PAIR.finditer(line):
        values = [value for name, value in match.groupdict().items() if name != "key" and value is not None]
        if values:
            pairs[match["key"].strip('"')] = values[0]
    return pairs


def _blocks(path: Path) -> Iterator[_Block]:
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
        info = parse_comment(comment)
        layout = _layout(info.pop("Properties", _PLAIN), where)
        width = sum(width for _, width in layout.values())
        for atom, row in enumerate(rows):
            if len(row) < width:
                raise DataError(f"{where} cannot be read: atom {atom} has {len(row)} columns instead of {width}.")
        yield _Block(info, layout, rows, where)
        count, number = count + 1, number + 2 + atoms


def _layout(properties: str, where: str) -> dict[str, tuple[int, int]]:
    words = properties.split(":")
    layout, first = {}, 0
    for name, kind, width in zip(words[::3], words[1::3], words[2::3]):
        if kind not in ("S", "R", "I", "L") or not width.isdecimal() or len(width) > 3 or not 0 < int(width) < 1000:
            raise DataError(f"{where} cannot be read: Properties has '{name}:{kind}:{width}'.")
        if name in _POSITIONS and int(width) != 3:
            raise DataError(f"{where} cannot be read: '{name}' must have 3 columns, not {width}.")
        layout[name] = (first, int(width))
        first += int(width)
    if len(words) % 3 or not layout:
        raise DataError(f"{where} cannot be read: Properties must be name:kind:width:.., not {properties[:80]!r}.")
    return layout


def _named(block: _Block, names: Sequence[str]) -> str:
    present = [name for name in names if name in block.layout]
    if not present:
        raise DataError(f"{block.where} cannot be read: it has no column '{names[0]}'.")
    return present[0]


def _column(block: _Block, name: str) -> Array:
    first, width = block.layout[name]
    try:
        return np.array([row[first : first + width] for row in block.rows]).astype(np.float64)
    except ValueError as error:
        raise DataError(f"{block.where} cannot be read: column '{name}': {error}.") from error


def _numbers(block: _Block) -> Array:
    from ase.data import atomic_numbers

    name = _named(block, [name for name in (*_SYMBOLS, *_NUMBERS) if name in block.layout] or _SYMBOLS)
    column = block.layout[name][0]
    words = [row[column] for row in block.rows]
    known = {
        word: int(word) if word.isdecimal() and len(word) < 40 else atomic_numbers.get(word.capitalize(), 0)
        for word in set(words)
    }
    for word, number in known.items():
        if not 0 < number < 119:
            raise DataError(f"{block.where} cannot be read: there is no element '{word[:40]}'.")
    return np.array([known[word] for word in words], dtype=np.uint8)


def _values(block: _Block, key: str) -> Array:
    """Return the numbers of one pair."""
    text = block.info[key]
    try:
        if text.startswith("_JSON"):
            return np.asarray(json.loads(text.removeprefix("_JSON")), dtype=np.float64)
        values = np.array(text.translate(_BRACKETS).split()).astype(np.float64)
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{block.where} cannot be read: '{key}' must be numbers, not {text[:80]!r}.") from error
    return values


def _lattice(block: _Block, scale: float) -> tuple[Array, Array]:
    """Return the cell [3, 3] in Å and pbc [3]; with a cell but no pbc, all directions are periodic."""
    cell = np.zeros((3, 3))
    if "Lattice" in block.info:
        values = _values(block, "Lattice")
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
