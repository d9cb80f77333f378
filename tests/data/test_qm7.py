"""QM7 ships whole, and to the last digit of its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import units

from geoeq.data import load, load_card
from geoeq.data.qm7 import QM7Reader
from geoeq.errors import DataError


def test_the_whole():
    dataset = load("qm7")
    assert len(dataset) == 7101
    assert len(dataset.positions) == 109600
    assert set(np.unique(dataset.numbers)) == {1, 6, 7, 8, 16}
    counts = np.diff(dataset.ptr)
    assert (counts.min(), counts.max()) == (4, 23)
    assert Path(load_card("qm7").folder, "qm7.npz").stat().st_size < 1_500_000


def test_methane_as_the_source_gives_it():
    dataset = load("qm7")
    methane = dataset[0]
    assert methane.z.tolist() == [6, 1, 1, 1, 1]
    np.testing.assert_array_equal(dataset.positions[0], [1.041682, -0.0562, -0.071481])
    # Bound, so negative, and -417.031 kcal/mol in the source.
    kcal_mol = dataset.targets["atomization_energy"][0] / (units.kcal / units.mol)
    assert kcal_mol == pytest.approx(-417.031, abs=1e-9)
    bonds = np.linalg.norm(dataset.positions[1:5] - dataset.positions[0], axis=1)
    assert np.all(abs(bonds - 1.09) < 0.01), "Å"


def test_energies_are_those_of_bound_molecules():
    dataset = load("qm7")
    per_atom = dataset.targets["atomization_energy"] / np.diff(dataset.ptr)
    assert per_atom.max() < -3
    assert per_atom.min() > -7


def test_the_dftb_column_is_kept():
    records = QM7Reader().read({"qm7.npz": Path(load_card("qm7").folder, "qm7.npz")})
    # The two methods differ by an offset of some 100 kcal/mol and little more.
    assert np.corrcoef(records.columns["dftb"], records.columns["pbe0"])[0, 1] > 0.97
    assert not np.allclose(records.columns["dftb"], records.columns["pbe0"])


def test_the_sample_is_part_of_the_whole():
    whole, sample = load("qm7"), load("qm7", sample=True)
    assert len(sample) == 100
    np.testing.assert_array_equal(sample.targets["atomization_energy"], whole.targets["atomization_energy"][:7100:71])
    assert sample.folder != whole.folder


@pytest.mark.parametrize("keep", [0, 100, 600_000, -10])
def test_a_truncated_file(tmp_path, keep):
    content = Path(load_card("qm7").folder, "qm7.npz").read_bytes()
    path = tmp_path / "qm7.npz"
    path.write_bytes(content[:keep])
    with pytest.raises(DataError, match=r"qm7.npz: it is truncated or altered"):
        QM7Reader().read({"qm7.npz": path})


def test_a_flipped_byte(tmp_path):
    content = bytearray(Path(load_card("qm7").folder, "qm7.npz").read_bytes())
    content[500_000] ^= 1
    path = tmp_path / "qm7.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"qm7.npz: it is truncated or altered"):
        QM7Reader().read({"qm7.npz": path})


def test_an_array_that_is_missing(tmp_path):
    np.savez(tmp_path / "qm7.npz", n_atoms=[1])
    with pytest.raises(DataError, match="must contain the arrays"):
        QM7Reader().read({"qm7.npz": tmp_path / "qm7.npz"})


def test_pickles_are_refused(tmp_path):
    names = ("z", "pos_micro_angstrom", "pbe0_milli_kcal", "dftb_nano_kcal")
    np.savez(tmp_path / "qm7.npz", n_atoms=np.array([{}], dtype=object), **dict.fromkeys(names, np.zeros(1)))
    with pytest.raises(DataError, match="'n_atoms' contains Python objects"):
        QM7Reader().read({"qm7.npz": tmp_path / "qm7.npz"})
