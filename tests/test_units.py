"""Units against numbers written elsewhere, and the errors of units that mean nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geoeq.errors import FieldError
from geoeq.fields import FIELDS
from geoeq.units import conversion, convert

#: CODATA 2014 and exact definitions: value of one source in target.
KNOWN = [
    ("Ha", "eV", 27.21138602),
    ("mHa", "meV", 27.21138602),
    ("kcal/mol", "eV", 0.0433641),
    ("kJ/mol", "kcal/mol", 1 / 4.184),
    ("a0", "Å", 0.52917721067),
    ("Bohr", "a0", 1.0),
    ("nm", "Angstrom", 10.0),
    ("D", "e·Å", 0.20819434),
    ("e·a0", "D", 2.541746),
    ("a0^3", "Å^3", 0.14818471),
    ("a0^2", "Å^2", 0.28002852),
    ("Ha/Bohr", "eV/Å", 51.42206),
    ("cal/mol/K", "eV/K", 4.33641e-5),
    ("GPa", "eV/Å^3", 1 / 160.21766208),
    ("GHz", "1/fs", 1e-6),
    ("eV", "meV", 1000.0),
]


@pytest.mark.parametrize(("source", "target", "factor"), KNOWN)
def test_factor_is_the_published_one(source: str, target: str, factor: float) -> None:
    assert conversion(source, target) == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize(("source", "target", "factor"), KNOWN)
def test_there_and_back_is_one(source: str, target: str, factor: float) -> None:
    assert conversion(source, target) * conversion(target, source) == pytest.approx(1.0, rel=1e-14)


def test_the_unit_of_every_field_can_be_read() -> None:
    for name, field in FIELDS.items():
        assert conversion(field.unit, f"1·{field.unit}") == pytest.approx(1.0), name


def test_convert_keeps_what_it_was_given() -> None:
    array = convert(np.array([1.0, 2.0], dtype=np.float32), "Ha", "eV")
    tensor = convert(torch.ones(2, dtype=torch.float64), "Ha", "eV")
    assert array.dtype == np.float32
    assert tensor.dtype == torch.float64
    assert tensor[0].item() == pytest.approx(27.21138602)


@pytest.mark.parametrize("pair", [("eV", "Å"), ("eV", "eV/Å"), ("kcal/mol", "eV/K"), ("D", "e"), ("1", "eV")])
def test_different_quantities_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(FieldError, match="measure different quantities"):
        conversion(*pair)


def test_a_misspelt_unit_is_named_with_the_closest() -> None:
    with pytest.raises(FieldError, match=r"In the unit 'kcla/mol': No unit is called 'kcla'\. Did you mean 'kcal'\?"):
        conversion("kcla/mol", "eV")


@pytest.mark.parametrize("unit", ["eV//Å", "", "eV^", "eV^x", "3eV", "eV/"])
def test_what_is_no_unit_is_refused(unit: str) -> None:
    with pytest.raises(FieldError, match=r"is not a unit|No unit is called"):
        conversion(unit, "eV")
