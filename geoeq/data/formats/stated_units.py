"""Units that a file states beside its values, such as ``energy-unit=kcal/mol``: they are honoured or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from geoeq.data.formats.quantities import DETECTED, VIRIAL, Key, column_of
from geoeq.errors import DataError, FieldError
from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["StatedUnits", "normalize_unit", "states_unit"]

_WORDS = {
    "ang": "Å",
    "angstrom": "Å",
    "angstroms": "Å",
    "a": "Å",
    "bohr": "Bohr",
    "hartree": "Ha",
    "ha": "Ha",
    "ev": "eV",
    "kcal": "kcal",
    "kj": "kJ",
    "gpa": "GPa",
    "kbar": "kbar",
    "debye": "D",
}

#: ``energy-unit``, ``forces_units`` or ``stress unit``; the name may have a dotted prefix.
_STATEMENT = re.compile(r"(?:.*\.)?(?P<name>[^.]*?)[-_ ]?units?", re.IGNORECASE)

#: One of the pairs in ``units="energy=eV forces=eV/Å"``.
_PAIR = re.compile(r"(?P<name>[^\s=:,]+)\s*[=:]\s*(?P<unit>[^\s,=]+)")

#: Names of lengths, in small letters.
_LENGTHS = {"length", "distance", "pos", "position", "positions", "coord", "coords", "coordinates", "cell", "lattice"}

_LENGTH = "length"


def normalize_unit(unit: str) -> str:
    """Write a unit as ``geoeq.units`` does: ``kcal/mol/Ang`` as ``kcal/mol/Å``; unknown words are kept."""
    text = re.sub(r"[^\W\d_]+", lambda match: _WORDS.get(match[0].casefold(), match[0]), unit.strip())
    return text.replace("**", "^").replace("³", "^3")


def states_unit(key: str) -> bool:
    """Return whether the key of a file has the form of a statement of a unit, such as ``energy-unit``."""
    return _STATEMENT.fullmatch(key) is not None


@dataclass
class StatedUnits:
    """The units stated in the structures of one or more files, which all have to be the same.

    Attributes:
        units: name of the quantity in small letters, "length" for positions and cells -> unit.
    """

    units: dict[str, str] = field(default_factory=dict)
    _seen: bool = False

    def add(self, pairs: Mapping[str, object], where: str) -> None:
        """Add the statements among the ``pairs`` of one structure.

        Raises:
            DataError: a unit is stated without a quantity, or differs from that of the structures before.
        """
        stated: dict[str, str] = {}
        for key, value in pairs.items():
            match = _STATEMENT.fullmatch(key)
            if match is not None and isinstance(value, str | dict):
                stated |= _statements(match["name"].casefold(), value, f"{where}: '{key}={value}'")
        if self._seen and stated != self.units:
            raise DataError(
                f"{where}: it states the units {_listed(stated)}, unlike the structures before it, which state "
                f"{_listed(self.units)}. Divide the structures into files with the same units."
            )
        self.units, self._seen = stated, True

    def length(self, default: str, where: str) -> str:
        """Return the unit of positions and cells.

        Raises:
            DataError: it is not a unit of length.
        """
        unit = self.units.get(_LENGTH, default)
        _check(unit, "Å", "positions", where)
        return unit

    def of_columns(self, keys: Mapping[str, Key], where: str) -> dict[str, str]:
        """Return column -> unit for those quantities of ``keys`` whose unit is stated.

        Raises:
            DataError: a unit is unknown or does not fit its quantity, or energies are stated to be in another unit
                than eV without a statement for forces or stresses.
        """
        found: dict[str, str] = {}
        for name, key in keys.items():
            names = (key.name.rpartition(".")[2].casefold(), name, *sorted(DETECTED.get(name, ())))
            unit = next((self.units[word] for word in names if word in self.units), None)
            if unit is not None:
                unit = f"{unit}/Å^3" if name == VIRIAL else unit
                _check(unit, FIELDS[column_of(name)].unit, name, where)
                found[column_of(name)] = unit
        energy, length = found.get("energy", "eV"), self.length("Å", where)
        if conversion(energy, "eV") != 1 or conversion(length, "Å") != 1:
            silent = sorted({"forces", "stress"} & {column_of(name) for name in keys} - {*found})
            if silent:
                raise DataError(
                    f"{where}: it states the units {_listed(self.units)}, but not that of {silent[0]}. State it "
                    f"too, as in '{silent[0]}-unit={FIELDS[silent[0]].unit}'."
                )
        return found

    def notes(self, columns: Mapping[str, str]) -> list[str]:
        """Return a remark for the user, given the units ``of_columns``."""
        used = {_LENGTH: self.units[_LENGTH], **columns} if _LENGTH in self.units else columns
        return [f"Units that the file states: {_listed(used)}."] if used else []


def _statements(name: str, value: str | dict[object, object], where: str) -> dict[str, str]:
    if name:
        return {_LENGTH if name in _LENGTHS else name: normalize_unit(str(value))}
    text = value if isinstance(value, str) else ""
    if text.startswith("_JSON"):
        try:
            value = json.loads(text.removeprefix("_JSON").replace('\\"', '"'))
        except (ValueError, RecursionError):
            value = {}
    pairs = value if isinstance(value, dict) else {pair["name"]: pair["unit"] for pair in _PAIR.finditer(text)}
    if not pairs or (isinstance(value, str) and _PAIR.sub("", text).strip(" ,")):
        raise DataError(
            f"{where} does not say of which quantity this is the unit. Write 'energy-unit=..', or remove it."
        )
    named = {str(quantity).casefold(): normalize_unit(str(unit)) for quantity, unit in pairs.items()}
    return {_LENGTH if quantity in _LENGTHS else quantity: unit for quantity, unit in named.items()}


def _check(unit: str, expected: str, name: str, where: str) -> None:
    try:
        conversion(unit, expected)
    except FieldError as error:
        raise DataError(f"{where}: it states the unit '{unit}' of {name}, which cannot be used: {error}") from error


def _listed(units: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {unit}" for name, unit in units.items()) or "none"
