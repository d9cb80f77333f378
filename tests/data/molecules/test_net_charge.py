"""A net charge under any of its names reaches the models from every file, and a model that ignores it says so."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from ase.io import write

from geoeq.data import load
from geoeq.data.molecules.net_charge import NET_CHARGE_KEYS, net_charge
from geoeq.data.structures import to_data
from geoeq.errors import InputError
from geoeq.models import EGNN, GraphScalar, NodeScalar
from geoeq.models.charge_use import ignored_charge
from geoeq.simulate import GeoeqCalculator

HYDROXIDE = Atoms("OH", [[0, 0, 0], [0.97, 0, 0]])


@pytest.mark.parametrize("key", NET_CHARGE_KEYS)
def test_each_name_of_the_charge_reaches_a_model(key):
    atoms = HYDROXIDE.copy()
    atoms.info[key] = -1
    model = EGNN([NodeScalar("charges", conserve=True)], width=6, layers=1, cutoff=4.0)
    assert float(model(to_data(atoms, torch.float32))["charges"].detach().sum()) == pytest.approx(-1, abs=1e-5)
    atoms.calc = GeoeqCalculator(model, "cpu")
    assert atoms.get_charges().sum() == pytest.approx(-1, abs=1e-5)
    atoms.info[key] = 1
    assert atoms.get_charges().sum() == pytest.approx(1, abs=1e-5)


def test_contradicting_and_impossible_charges_are_refused():
    assert net_charge({}) is None
    assert net_charge({"charge": None, "total_charge": 2}) == 2
    with pytest.raises(InputError, match=r"info\['total_charge'\] is 0, info\['charge'\] is -1"):
        net_charge({"charge": -1, "total_charge": 0})
    with pytest.raises(InputError, match=r"info\['charge'\] must be the net charge in e, one finite number"):
        net_charge({"charge": [0.1, -0.1]})


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_training_gets_the_charge_of_the_file_as_an_input(tmp_path, suffix):
    ion, neutral = HYDROXIDE.copy(), HYDROXIDE.copy()
    ion.info.update(charge=-1, my_energy=1.0)
    write(tmp_path / f"a.{suffix}", [ion, neutral])
    dataset = load(tmp_path / f"a.{suffix}")
    assert dataset.batch([1, 0], targets=[]).total_charge.tolist() == [0.0, -1.0]
    assert "total_charge" not in dataset.targets
    assert any("structures without it are neutral" in note for note in dataset.notes)


def test_a_model_that_ignores_the_charge_says_so():
    atoms = HYDROXIDE.copy()
    atoms.info["charge"] = -1
    energies = EGNN([GraphScalar("energy")], width=6, layers=1, cutoff=4.0)
    charges = EGNN([NodeScalar("charges", conserve=True)], width=6, layers=1, cutoff=4.0)
    data = to_data(atoms, torch.float32)
    assert "the net charge of -1 e has no effect" in str(ignored_charge(energies, data))
    assert ignored_charge(charges, data) is None
    assert ignored_charge(energies, to_data(HYDROXIDE, torch.float32)) is None
    atoms.calc = GeoeqCalculator(energies, "cpu")
    with pytest.warns(UserWarning, match="has no effect"):
        atoms.get_potential_energy()
