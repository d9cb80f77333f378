"""Elements of atoms that a file numbers: types of LAMMPS are not atomic numbers, so geoeq never guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from geoeq.data.ragged import Array
from geoeq.errors import DataError

__all__ = ["check_types", "numbers_of_symbols", "numbers_of_types"]

_REMEDY = (
    "these may be types or atomic numbers. Write the symbols of the elements, or name them in a card, as in 'options: "
    "{types: {1: Si, 2: O}}'"
)


def check_types(types: Mapping[object, str] | None) -> dict[int, int]:
    """Return type -> atomic number for a type map of a card.

    Raises:
        ValueError: a type is not a number, or a symbol is not an element.
    """
    from ase.data import atomic_numbers

    checked: dict[int, int] = {}
    for kind, symbol in (types or {}).items():
        if not str(kind).isdecimal():
            raise ValueError(f"types: a type must be a number, not {kind!r}.")
        if atomic_numbers.get(str(symbol), 0) < 1:
            raise ValueError(f"types: there is no element {symbol!r} (type {kind}).")
        checked[int(str(kind))] = atomic_numbers[str(symbol)]
    return checked


def numbers_of_symbols(words: Sequence[str], types: Mapping[int, int], where: str) -> Array:
    """Return the atomic numbers of symbols, or of types by their map.

    Raises:
        DataError: a symbol is not an element, or atoms have types without a map.
    """
    from ase.data import atomic_numbers

    known = {word: atomic_numbers.get(word.capitalize(), 0) for word in {*words}}
    numbered = [word for word in known if word.isdecimal()]
    if numbered:
        kinds = numbers_of_types(np.array([int(word) for word in numbered]), types, where)
        known |= dict(zip(numbered, kinds.tolist()))
    for word, number in known.items():
        if number < 1:
            raise DataError(f"{where} cannot be read: there is no element '{word}'.")
    return np.array([known[word] for word in words], dtype=np.uint8)


def numbers_of_types(kinds: Array, types: Mapping[int, int], where: str) -> Array:
    """Return the atomic numbers of types.

    Raises:
        DataError: there is no map, or it lacks a type.
    """
    present = np.unique(kinds).tolist()
    lacking = [kind for kind in present if kind not in types]
    if lacking and not types:
        shown = ", ".join(map(str, present[:10]))
        raise DataError(f"{where} cannot be read: instead of elements it has the numbers {shown}; {_REMEDY}.")
    if lacking:
        raise DataError(f"{where} cannot be read: the option 'types' has no element for the type {lacking[0]}.")
    return np.array([types[kind] for kind in kinds.tolist()], dtype=np.uint8)
