"""Databases of ASE: results, key-value pairs and data; units stated by SchNetPack; other files."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import ase
import ase.db
import numpy as np
import pytest
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator

from geoeq.data import Records, join, load
from geoeq.data.formats.ase_database import ASEDatabaseReader
from geoeq.errors import DataError


def frames(periodic: bool = False) -> list[ase.Atoms]:
    random = np.random.default_rng(0)
    found = []
    for size in (3, 2):
        atoms = ase.Atoms("OHF"[:size], random.normal(size=(size, 3)) * 3, cell=np.eye(3) * 7, pbc=periodic)
        results = {"energy": random.normal(), "forces": random.normal(size=(size, 3)), "stress": random.normal(size=6)}
        atoms.calc = SinglePointCalculator(atoms, **results)
        found.append(atoms)
    return found


def read(path: Path, **options: object) -> Records:
    return join(ASEDatabaseReader(**options).read({path.name: path}), str(path))


def test_results(tmp_path):
    atoms = frames(periodic=True)
    with ase.db.connect(tmp_path / "x.db") as database:
        for one in atoms:
            database.write(one, group="bulk", gap_of_mine=1.5)
    dataset = load(tmp_path / "x.db")
    np.testing.assert_array_equal(dataset.targets["energy"], [one.get_potential_energy() for one in atoms])
    np.testing.assert_array_equal(dataset.targets["forces"], np.concatenate([one.get_forces() for one in atoms]))
    np.testing.assert_allclose(dataset.targets["stress"], [one.get_stress(voigt=False) for one in atoms])
    np.testing.assert_array_equal(dataset.positions, np.concatenate([one.positions for one in atoms]))
    assert dataset[0].pbc.all()
    assert read(tmp_path / "x.db", keys={"gap": "gap_of_mine"}).columns["gap"].tolist() == [1.5, 1.5]


def test_data_with_the_units_of_schnetpack(tmp_path):
    with ase.db.connect(tmp_path / "x.db") as database:
        for one in frames():
            one.calc = None
            data = {"energy": np.array([1.0]), "forces": np.ones((len(one), 3)), "mu": np.array([[0.0, 0.0, 1.0]])}
            database.write(one, data=data)
        database.metadata = {
            "_property_unit_dict": {"energy": "kcal/mol", "forces": "kcal/mol/Ang", "mu": "Debye"},
            "_distance_unit": "Bohr",
        }
    dataset = load(tmp_path / "x.db")
    np.testing.assert_allclose(dataset.targets["energy"], units.kcal / units.mol)
    np.testing.assert_allclose(dataset.targets["forces"], units.kcal / units.mol)
    np.testing.assert_allclose(dataset.positions[:3], frames()[0].positions * units.Bohr)
    assert "The units are those in the metadata of the database." in dataset.notes
    records = read(tmp_path / "x.db", keys={"dipole": "mu"})
    assert records.columns["dipole"].tolist() == [[0, 0, 1]] * 2


def test_what_is_no_database_of_ase_is_left_as_it_was(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"x.db: it is not a database of ASE; its tables are none"):
        read(path)
    assert path.read_bytes() == b""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE films (title text)")
    before = path.read_bytes()
    with pytest.raises(DataError, match="its tables are films"):
        read(path)
    assert path.read_bytes() == before
    path.write_text("not SQLite at all")
    with pytest.raises(DataError, match="not an SQLite database"):
        read(path)
    with pytest.raises(DataError, match="There is no file"):
        read(tmp_path / "gone.db")
    assert not (tmp_path / "gone.db").exists()


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_named(tmp_path, seed):
    path = tmp_path / "x.db"
    with ase.db.connect(path) as database:
        for one in frames(periodic=True):
            database.write(one, data={"mu": np.ones(3)})
    random = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    used = np.flatnonzero(np.frombuffer(bytes(content), np.uint8))
    if seed % 3 == 0:
        content = content[: random.integers(len(content))]
    else:
        for place in random.choice(used, size=1 if seed % 3 == 1 else 40):
            content[place] ^= 1 << random.integers(8)
    path.write_bytes(content)
    try:
        read(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
