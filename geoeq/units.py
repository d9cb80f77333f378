"""Units: Å, eV and eV/Å are used internally; everything else is converted once, when it is read.

A unit is a product or quotient of the symbols below with integer powers, for example
``"kcal/mol"``, ``"eV/Å^3"`` or ``"cal/mol/K"``. Factors come from ``ase.units``.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from typing import TypeVar

from geoeq.errors import FieldError, unknown_name

__all__ = ["conversion", "convert", "counted", "format_number", "parse_quantity"]

Value = TypeVar("Value")

_QUANTITY = re.compile(r"\s*(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<unit>\S.*?)?\s*$")
_FACTOR = re.compile(r"(?P<symbol>[^\d\s^*/·.-][^\s^*/·]*)(?:\^(?P<power>-?\d+))?$")


#: Energies that are only used for a mole, as in kcal/mol.
_MOLAR = ("kcal", "cal", "kJ")


@functools.cache
def _symbols() -> dict[str, tuple[float, dict[str, int]]]:
    """Return the table symbol -> (value in eV, Å, e, K and ASE's time; dimension)."""
    from ase import units

    energy, length, charge = {"energy": 1}, {"length": 1}, {"charge": 1}
    pressure = {"energy": 1, "length": -3}
    return {
        "eV": (1.0, energy),
        "meV": (1e-3, energy),
        "Ha": (units.Hartree, energy),
        "mHa": (1e-3 * units.Hartree, energy),
        "kcal": (units.kcal, energy),
        "cal": (1e-3 * units.kcal, energy),
        "kJ": (units.kJ, energy),
        "mol": (units.mol, {}),
        "Å": (1.0, length),
        "Angstrom": (1.0, length),
        "nm": (units.nm, length),
        "a0": (units.Bohr, length),
        "Bohr": (units.Bohr, length),
        "e": (1.0, charge),
        "D": (units.Debye, {"charge": 1, "length": 1}),
        "K": (1.0, {"temperature": 1}),
        "fs": (units.fs, {"time": 1}),
        "ps": (1e3 * units.fs, {"time": 1}),
        "ns": (1e6 * units.fs, {"time": 1}),
        "GHz": (1e-6 / units.fs, {"time": -1}),
        "GPa": (units.GPa, pressure),
        "MPa": (1e-3 * units.GPa, pressure),
        "bar": (units.bar, pressure),
        "kbar": (1e3 * units.bar, pressure),
        "1": (1.0, {}),
    }


@functools.cache
def _parse(unit: str) -> tuple[float, dict[str, int]]:
    factor, dimension, symbols = 1.0, Counter[str](), Counter[str]()
    for position, part in enumerate(re.split(r"([/*·])", unit.replace(" ", ""))):
        if position % 2:
            sign = -1 if part == "/" else 1
            continue
        if position == 0:
            sign = 1
        if part == "1":
            continue
        match = _FACTOR.match(part)
        if match is None:
            raise FieldError(f"'{unit}' is not a unit: cannot parse '{part}'. Write units like 'kcal/mol' or 'eV/Å^3'.")
        symbol, power = match["symbol"], sign * int(match["power"] or 1)
        if symbol not in _symbols():
            raise FieldError(f"In the unit '{unit}': {unknown_name('unit', symbol, _symbols())}")
        value, powers = _symbols()[symbol]
        factor *= value**power
        symbols[symbol] += power
        for name, count in powers.items():
            dimension[name] += power * count
    molar = sum(count for symbol, count in symbols.items() if symbol in _MOLAR)
    if molar != -symbols["mol"]:
        raise FieldError(
            f"'{unit}' is not a unit of a molecule: kcal, cal and kJ are energies of a mole here. Write "
            f"{next((symbol for symbol in symbols if symbol in _MOLAR), 'kcal')}/mol, or eV."
        )
    return factor, {name: count for name, count in dimension.items() if count}


def conversion(source: str, target: str) -> float:
    """Return the factor that converts a value from the unit ``source`` to the unit ``target``.

    Raises:
        FieldError: a symbol is unknown, or the two units measure different quantities.
    """
    if source == target:
        return 1.0
    (factor, dimension), (other, expected) = _parse(source), _parse(target)
    if dimension != expected:
        raise FieldError(f"'{source}' cannot be converted to '{target}': they measure different quantities.")
    return factor / other


def convert(value: Value, source: str, target: str) -> Value:
    """Convert ``value`` (a number, array or tensor) from the unit ``source`` to the unit ``target``."""
    return value * conversion(source, target)  # type: ignore[operator, return-value]


def parse_quantity(text: str, unit: str) -> float:
    """Parse a number with its unit, such as ``300K``, ``0.5 fs`` or ``1bar``, and convert it to ``unit``.

    Raises:
        FieldError: the number or the unit is missing, or the unit measures another quantity.
    """
    match = _QUANTITY.match(text)
    if match is None:
        raise FieldError(f"'{text}' is not a number with a unit.")
    if match["unit"] is None:
        raise FieldError(f"'{text}' has no unit.")
    return float(match["number"]) * conversion(match["unit"], unit)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 epoch, 2 epochs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_number(value: float) -> str:
    """Format a number with three or four significant digits: 12.34, 0.007120, 1.20e-05."""
    if value != 0 and abs(value) < 1e-3:
        return f"{value:.2e}"
    return f"{value:#.4g}".rstrip(".") if abs(value) < 10000 else f"{value:.0f}"
