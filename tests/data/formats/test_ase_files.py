"""Files of the user: whatever ASE reads, and sdf without RDKit."""

from __future__ import annotations

import ase
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from geoeq.data import load
from geoeq.data.molecules.sdf import read_sdf
from geoeq.errors import DataError

DIFLUORIDE = """oxygen difluoride
  by hand

  3  2  0  0  0  0  0  0  0  0999 V2000
   -0.0127    1.0858    0.0080 F   0  0  0  0  0  0  0  0  0  0  0  0
    1.3000  -11.2000    0.1000 O   0  0  0  0  0  0  0  0  0  0  0  0
    2.1000    0.5000 -100.3000 F   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0
  2  3  1  0
M  END
"""


@pytest.fixture
def frames() -> list[ase.Atoms]:
    random = np.random.default_rng(0)
    frames = []
    for size in (3, 1, 5):
        atoms = ase.Atoms("HCNOF"[:size], random.normal(size=(size, 3)) * 3)
        results = {"energy": float(size), "forces": random.normal(size=(size, 3))}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("name", ["x.extxyz", "x.xyz", "x.traj"])
def test_structures_and_targets(tmp_path, frames, name):
    path = tmp_path / name
    ase.io.write(path, frames)
    dataset = load(path)
    assert len(dataset) == 3
    np.testing.assert_allclose(dataset.targets["energy"], [3, 1, 5])
    np.testing.assert_allclose(dataset.targets["forces"], np.concatenate([f.get_forces() for f in frames]), atol=1e-7)
    np.testing.assert_allclose(dataset.positions, np.concatenate([f.positions for f in frames]), atol=1e-7)
    assert dataset[1].forces.shape == (1, 3)
    assert "cell" not in dataset[0]
    assert dataset.card.name == name


def test_a_target_that_some_lack_is_left_out(tmp_path, frames):
    frames[1].calc = None
    ase.io.write(tmp_path / "x.traj", frames)
    assert load(tmp_path / "x.traj").targets == {}


def test_stress_is_a_matrix(tmp_path):
    atoms = ase.Atoms("Cu", cell=np.eye(3) * 2.5, pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, stress=np.arange(6.0))
    ase.io.write(tmp_path / "x.traj", [atoms, atoms])
    dataset = load(tmp_path / "x.traj")
    np.testing.assert_array_equal(dataset.targets["stress"][1], [[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    data = dataset[0]
    assert data.cell.shape == (1, 3, 3)
    assert data.pbc.tolist() == [[True, True, True]]


def test_sdf(tmp_path):
    path = tmp_path / "x.sdf"
    path.write_text(DIFLUORIDE + "$$$$\n" + DIFLUORIDE.replace("oxygen difluoride", "again") + "$$$$\n")
    dataset = load(path)
    assert len(dataset) == 2
    assert dataset.numbers.tolist() == [9, 8, 9] * 2
    np.testing.assert_allclose(dataset.positions[2], [2.1, 0.5, -100.3])
    (molecule,) = read_sdf(DIFLUORIDE.splitlines(), "x")
    assert molecule.title == "oxygen difluoride"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("$$$$\n".join([DIFLUORIDE] * 2), "molecule 2 is truncated"),
        (DIFLUORIDE[:200] + "\n$$$$\n", r"molecule 1"),
        (DIFLUORIDE.replace(" O ", " Q ") + "$$$$\n", "molecule 1, atom 2 is 'Q', which is a placeholder"),
        (DIFLUORIDE.replace(" 1.0858 ", " 1.08x8 ") + "$$$$\n", "not an SDF file of version V2000"),
        (DIFLUORIDE.replace("V2000", "V3000") + "$$$$\n", "its version V3000 is not supported"),
        (DIFLUORIDE.replace("  3  2  0", "  9  2  0") + "$$$$\n", "molecule 1"),
        ("", "contains no structures"),
    ],
)
def test_an_sdf_file_that_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "x.sdf"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.xyz", "2\n\nH 0 0 0\n", r"x.xyz: structure 0 \(counted from 0\) cannot be read"),
        ("x.xyz", "1\n\nH 0 0 0\n1\n\nH 0 0 zero\n", r"x.xyz: structure \d \(counted from 0\) cannot be read"),
        ("x.nonsense", "what is this", "ASE does not know this kind of file"),
        ("x.extxyz", "", "x.extxyz"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*gone.xyz"):
        load(tmp_path / "gone.xyz")
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path)
