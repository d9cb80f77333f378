"""Units that a file states beside its values are honoured or refused."""

from __future__ import annotations

import json
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase import units

from geoeq.data import join, load
from geoeq.data.formats.ase_files import ASEReader
from geoeq.data.structures import read_structures
from geoeq.errors import DataError

KCAL = units.kcal / units.mol


def write(folder: Path, *comments: str, forces: bool = True) -> Path:
    columns, row = (":forces:R:3", " 1 2 3") if forces else ("", "")
    text = "".join(
        f"2\nProperties=species:S:1:pos:R:3{columns} {comment}\nO 0 0 0{row}\nH 0 0 1{row}\n" for comment in comments
    )
    path = folder / "x.xyz"
    path.write_text(text)
    return path


def test_units_of_the_header_are_converted(tmp_path: Path) -> None:
    lattice = 'Lattice="5 0 0 0 5 0 0 0 5" stress="1 0 0 0 2 0 0 0 3"'
    path = write(tmp_path, f"energy=-10 energy-unit=kcal/mol force-unit=kcal/mol/Angstrom stress-unit=GPa {lattice}")
    dataset = load(path)
    np.testing.assert_allclose(dataset.targets["energy"], -10 * KCAL)
    np.testing.assert_allclose(dataset.targets["forces"][0], np.array([1, 2, 3]) * KCAL)
    np.testing.assert_allclose(dataset.targets["stress"][0], np.diag([1, 2, 3]) * units.GPa)
    assert "Units that the file states: energy kcal/mol, forces kcal/mol/Å, stress GPa." in dataset.notes
    assert not any("Not read" in note for note in dataset.notes)


@pytest.mark.parametrize(
    "statement",
    [
        "energy_unit=Hartree forces_units=Hartree/Bohr",
        'energy-units=Ha "force unit"=hartree/bohr',
        'units="energy=Ha forces=Ha/Bohr"',
        r'units="_JSON {\"energy\": \"hartree\", \"forces\": \"Ha/bohr\"}"',
    ],
)
def test_forms_of_a_statement(tmp_path: Path, statement: str) -> None:
    if "_JSON" in statement:
        atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"energy": -1.0})
        atoms.info["units"] = {"energy": "hartree", "forces": "Ha/bohr"}
        atoms.new_array("forces", np.array([[1.0, 2, 3]] * 2))
        path = tmp_path / "x.xyz"
        ase.io.write(path, atoms, format="extxyz")
    else:
        path = write(tmp_path, f"energy=-1 {statement}")
    dataset = load(path)
    assert dataset.targets["energy"][0] == pytest.approx(-units.Hartree)
    np.testing.assert_allclose(dataset.targets["forces"][0], np.array([1, 2, 3]) * units.Hartree / units.Bohr)


def test_lengths_in_bohr_for_training_and_for_prediction(tmp_path: Path) -> None:
    path = write(tmp_path, "length-unit=bohr", forces=False)
    assert load(path).positions[1, 2] == pytest.approx(units.Bohr)
    assert read_structures(path)[0].atoms.positions[1, 2] == pytest.approx(units.Bohr)


@pytest.mark.parametrize(
    ("comments", "message"),
    [
        (["energy=1 energy-unit=parsec"], r"it states the unit 'parsec' of energy, which cannot be used"),
        (["energy=1 energy-unit=Å"], r"unit 'Å' of energy, which cannot be used: .*different quantities"),
        (["energy=1 energy-unit=kcal/mol"], r"states the units energy kcal/mol, but not that of forces. State it too"),
        (["energy=1 length-unit=bohr"], r"but not that of forces"),
        (["energy=1 units=metal"], r"'units=metal' does not say of which quantity this is the unit"),
        (["energy=1", "energy=1 energy-unit=kcal/mol force-unit=eV/Å"], "structure 1 .* unlike the structures before"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, comments: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path, *comments))


def test_units_in_a_trajectory_and_in_json_of_pymatgen(tmp_path: Path) -> None:
    atoms = ase.Atoms("OH", [[0, 0, 0], [0, 0, 1]], info={"energy": -1.0, "energy_unit": "kcal/mol"})
    ase.io.write(tmp_path / "x.json", atoms)
    site = {"species": [{"element": "Si", "occu": 1}], "abc": [0, 0, 0]}
    structure = {"lattice": {"matrix": (np.eye(3) * 3).tolist()}, "sites": [site]}
    entry = {"structure": structure, "outputs": {"energy": -1.0, "energy_unit": "kcal/mol"}}
    (tmp_path / "y.json").write_text(json.dumps([entry]))
    ase.io.write(tmp_path / "x.xyz", atoms, format="extxyz")
    for name in ("x.xyz", "y.json"):
        assert load(tmp_path / name).targets["energy"][0] == pytest.approx(-KCAL), name
    atoms.info["energy_unit"] = "Ha"
    ase.io.write(tmp_path / "x.xyz", atoms, format="extxyz")
    records = join(ASEReader().read({"x.xyz": tmp_path / "x.xyz"}), "x")
    assert records.columns["energy"].tolist() == [-1.0], "in the unit of the file"
    assert ASEReader().survey({"x.xyz": tmp_path / "x.xyz"}).units["energy"] == "Ha"


def test_a_card_may_not_contradict_the_file(tmp_path: Path) -> None:
    write(tmp_path, "energy=-10 energy-unit=kcal/mol", forces=False)
    card = tmp_path / "card.yaml"
    text = """
name: mine
title: test
reader: geoeq.data.formats.extxyz.ExtxyzReader
licence: none
citation: none
sources: [{file: x.xyz, shipped: true}]
targets: {energy: {column: energy, unit: UNIT, report: eV}}
default_target: energy
splits: {all: {method: permutation, seed: 0, sizes: {train: 1, valid: 0, test: 0}}}
default_split: all
"""
    card.write_text(text.replace("UNIT", "kcal/mol"))
    assert load(card, root=tmp_path / "cache").targets["energy"][0] == pytest.approx(-10 * KCAL)
    card.write_text(text.replace("UNIT", "Ha"))
    with pytest.raises(DataError, match=r"'targets.energy.unit' is 'Ha', but the file states 'kcal/mol'"):
        load(card, root=tmp_path / "cache")
