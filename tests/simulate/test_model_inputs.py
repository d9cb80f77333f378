"""Every entry point converts a structure to the same model inputs, to the last bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from rich.console import Console

from geoeq.cli.main import main
from geoeq.data.structures import Structure, from_smiles, to_atoms, to_batch, to_data
from geoeq.models import EGNN, Forces, GraphScalar, NodeScalar
from geoeq.models.checkpoint import save_checkpoint
from geoeq.simulate import GeoeqCalculator, MDSettings, Simulation
from geoeq.simulate.engines.verification import structures_to_compare
from geoeq.simulate.potential import as_potential
from geoeq.symmetry.calculators import from_calculator
from geoeq.training.evaluation.predict import predict_structures

#: This energy model is given a net charge only to see that it arrives.
pytestmark = pytest.mark.filterwarnings("ignore:.*the net charge of .* has no effect")

INPUTS = ("z", "pos", "cell", "pbc", "vel", "charge", "total_charge")


@pytest.fixture
def atoms() -> Atoms:
    """A distorted crystal with a cell, charges, velocities and a net charge."""
    generator = np.random.default_rng(0)
    crystal = bulk("NaCl", "rocksalt", a=5.64).repeat((2, 1, 1))
    crystal.rattle(0.1, rng=generator)
    crystal.set_initial_charges(generator.normal(size=len(crystal)))
    crystal.set_momenta(generator.normal(size=(len(crystal), 3)))
    crystal.info["total_charge"] = 1.0
    return crystal


@pytest.fixture
def model() -> Forces:
    torch.manual_seed(0)
    return Forces(EGNN([GraphScalar("energy")], width=6, layers=1, cutoff=4.0), stress=True).double()


def recorded(module):
    """The inputs of the first call of a module."""
    calls = []
    module.register_forward_pre_hook(lambda _, args: calls.append(args[0].clone()))
    return calls


def through_predict(model, atoms, tmp_path):
    calls = recorded(model)
    predict_structures(model, [Structure(atoms, "crystal")], Console(file=io.StringIO()))
    return calls[0]


def through_calculator(model, atoms, tmp_path):
    calculator = GeoeqCalculator(model, "cpu")
    calls = recorded(calculator.model)
    calculator.get_property("energy", atoms)
    return calls[0]


def through_md(model, atoms, tmp_path):
    calculator = GeoeqCalculator(model, "cpu")
    calls = recorded(calculator.model)
    atoms = atoms.copy()
    atoms.calc = calculator
    Simulation(atoms, MDSettings("nve", steps=1), tmp_path / "md").run()
    return calls[0]


def through_export(model, atoms, tmp_path):
    return list(structures_to_compare(as_potential(model, "cpu"), [atoms]))[-2]


def through_symmetry(model, atoms, tmp_path):
    calculator = GeoeqCalculator(model, "cpu")
    calls = recorded(calculator.model)
    from_calculator(calculator)(to_batch([atoms], torch.float64))
    return calls[0]


@pytest.mark.parametrize("entry", [through_predict, through_calculator, through_md, through_export])
def test_the_model_inputs_are_bitwise_the_same(entry, model, atoms, tmp_path):
    expected = to_data(atoms, torch.float64)
    assert set(INPUTS) == set(expected.keys())
    inputs = entry(model, atoms, tmp_path)
    for name in INPUTS:
        assert inputs[name].dtype == expected[name].dtype, name
        assert torch.equal(inputs[name].cpu(), expected[name]), name


def test_a_calculator_under_check_gets_charges_and_velocities(model, atoms, tmp_path):
    inputs = through_symmetry(model, atoms, tmp_path)
    for name, value in to_data(atoms, torch.float64).items():
        torch.testing.assert_close(inputs[name], value, rtol=1e-14, atol=0)


def test_atoms_and_data_are_converted_both_ways(atoms):
    back = to_atoms(to_data(atoms, torch.float64))
    assert (back.numbers == atoms.numbers).all()
    assert (back.pbc == atoms.pbc).all()
    assert back.info["total_charge"] == 1.0
    for name in ("positions", "momenta", "initial_charges"):
        np.testing.assert_allclose(back.arrays[name], atoms.arrays[name], rtol=1e-14)
    np.testing.assert_array_equal(back.cell.array, atoms.cell.array)


def test_a_batch_has_net_charges_where_one_structure_has_one(atoms):
    neutral = Atoms("H2", [[0, 0, 0], [0, 0, 0.74]])
    batch = to_batch([neutral, atoms], torch.float32)
    assert batch.total_charge.tolist() == [0.0, 1.0]
    assert batch.pbc.tolist() == [[False] * 3, [True] * 3]
    assert "vel" not in batch
    assert "charge" not in batch


def test_predict_honours_the_net_charge_of_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_checkpoint(EGNN([NodeScalar("charges", conserve=True)], width=6, layers=1, cutoff=4.0), "run", {})
    ion = Atoms("OH3", [[0, 0, 0], [0.95, 0, 0.2], [-0.5, 0.8, 0.2], [-0.5, -0.8, 0.2]], info={"total_charge": 1})
    write("ion.xyz", ion)
    assert main(["predict", "run", "ion.xyz", "-o", "out.xyz"]) == 0
    charges = read("out.xyz").arrays["predicted_charges"]
    assert charges.sum() == pytest.approx(1, abs=1e-6)


def test_a_smiles_has_its_net_charge():
    pytest.importorskip("rdkit")
    ion, neutral = (structure.atoms for structure in from_smiles(["[NH4+]", "O"]))
    batch = to_batch([ion, neutral], torch.float64)
    assert batch.total_charge.tolist() == [1.0, 0.0]
