"""An ensemble: means, deviations, and forces that are derivatives of the mean energy."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk

from geoeq.errors import FieldError, InputError
from geoeq.fields import field, uncertainty_name
from geoeq.geometry.random_structures import random_batch
from geoeq.models import EGNN, Dipole, Ensemble, Forces, GraphScalar, NodeVector, TensorFieldNetwork, from_config
from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.models.model import Model
from geoeq.simulate import GeoeqCalculator
from geoeq.symmetry import assert_equivariant


def network(seed, *heads, **options):
    torch.manual_seed(seed)
    return EGNN(list(heads) or [GraphScalar("energy")], **{"width": 8, "layers": 1, "cutoff": 4.0, **options}).double()


@pytest.fixture
def batch():
    return random_batch((4, 7, 1), periodic=True)


def test_means_and_deviations_are_those_of_the_members(batch):
    members = [Forces(network(seed)) for seed in range(3)]
    outputs = Ensemble(members, {"forces": 2.0})(batch)
    each = [model(batch) for model in members]
    energies = torch.stack([entry["energy"] for entry in each])
    forces = torch.stack([entry["forces"] for entry in each])
    torch.testing.assert_close(outputs["energy"], energies.sum(0) / 3)
    torch.testing.assert_close(outputs["forces"], forces.sum(0) / 3)
    variance = (energies - energies.mean(0)).square().sum(0) / 2
    torch.testing.assert_close(outputs["energy_uncertainty"], variance.sqrt())
    norms = (forces - forces.mean(0)).square().sum((0, 2)).div(2).sqrt()
    torch.testing.assert_close(outputs["forces_uncertainty"], 2 * norms)
    assert bool((outputs["energy_uncertainty"] > 0).all())
    assert norms.shape == (12,)


def test_forces_of_the_mean_are_the_mean_of_forces(batch):
    members = [network(seed, cutoff=3.0 + seed) for seed in range(3)]
    inside = Ensemble([Forces(model, stress=True) for model in members])(batch)
    outside = Forces(Ensemble(members), stress=True)(batch)
    for name in ("energy", "forces", "stress", "energy_uncertainty"):
        torch.testing.assert_close(inside[name], outside[name], rtol=1e-10, atol=1e-12)


def test_it_is_equivariant(float64):
    assert_equivariant(Ensemble.example().double())
    turning = TensorFieldNetwork([GraphScalar("energy"), Dipole("dipole")], width=4, layers=1, cutoff=4.0).double()
    assert_equivariant(Ensemble([turning, network(1, GraphScalar("energy"), Dipole("dipole"))]))


def test_symmetry_cutoff_and_elements_are_those_that_all_have():
    first, second = network(0), network(1, cutoff=5.0)
    second.group = "SE(3)"
    first.set_elements([1, 6, 8])
    second.set_elements([6, 8, 9])
    both = Ensemble([first, second])
    assert (both.group, both.cutoff, both.elements) == ("SE(3)", 5.0, (6, 8))
    assert Ensemble([first, network(2, cutoff=None)]).cutoff is None
    assert both.title == "Ensemble of 2 EGNN"


def test_it_is_built_again_from_its_configuration(tmp_path, batch):
    model = Ensemble([network(0), network(1)], {"energy": 1.5})
    save_checkpoint(model, tmp_path)
    again, _ = load_checkpoint(tmp_path)
    torch.testing.assert_close(again(batch), model(batch), rtol=0, atol=0)
    assert from_config(model.config(), Model).factors == {"energy": 1.5}


@pytest.mark.parametrize("forces", [False, True])
def test_the_calculator_gives_uncertainties(forces):
    members = [Forces(network(seed)) if forces else network(seed) for seed in range(2)]
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = GeoeqCalculator(Ensemble(members, {"energy": 3.0}), "cpu")
    forces = atoms.get_forces()
    each = []
    for model in members:
        atoms_too = atoms.copy()
        atoms_too.calc = GeoeqCalculator(model, "cpu")
        each.append((atoms_too.get_potential_energy(), atoms_too.get_forces(), atoms_too.get_stress()))
    assert atoms.get_potential_energy() == pytest.approx((each[0][0] + each[1][0]) / 2, rel=1e-12)
    assert forces == pytest.approx((each[0][1] + each[1][1]) / 2, abs=1e-12)
    assert atoms.get_stress() == pytest.approx((each[0][2] + each[1][2]) / 2, abs=1e-12)
    wanted = 3 * abs(each[0][0] - each[1][0]) / 2**0.5
    assert atoms.calc.results["energy_uncertainty"] == pytest.approx(wanted, rel=1e-10)
    assert atoms.calc.get_property("forces_uncertainty", atoms).shape == (8,)
    norms = ((each[0][1] - each[1][1]) ** 2).sum(1) ** 0.5 / 2**0.5
    assert atoms.calc.results["forces_uncertainty"] == pytest.approx(norms, abs=1e-10)


def test_what_cannot_be_an_ensemble():
    one = network(0)
    with pytest.raises(InputError, match="two or more models, whose spread it measures; there are 1"):
        Ensemble([one])
    with pytest.raises(FieldError, match="model 1 predicts energy, and model 2 energy, forces"):
        Ensemble([one, Forces(network(1))])
    with pytest.raises(FieldError, match="energy_uncertainty: use networks without"):
        Ensemble([Ensemble([one, network(1)]), Ensemble([one, network(2)])])
    with pytest.raises(FieldError, match="a factor for 'forces', but the models have no"):
        Ensemble([one, network(1)], {"forces": 1.0})
    with pytest.raises(InputError, match=r"factor for 'energy' is -1\.0; it must be a positive, finite number"):
        Ensemble([one, network(1)], {"energy": -1})
    other = network(1)
    other.group = "T(3)"
    with pytest.raises(InputError, match=r"different symmetries, E\(3\), T\(3\)"):
        Ensemble([one, other])


def test_direct_forces_are_not_conservative():
    members = [network(seed, GraphScalar("energy"), NodeVector("forces")) for seed in range(2)]
    assert not Ensemble(members).conservative


def test_names_of_uncertainties():
    assert field(uncertainty_name("forces")).irreps == "0e"
    assert (field("forces_uncertainty").level, field("forces_uncertainty").unit) == ("node", "eV/Å")
    with pytest.raises(FieldError, match="No field is called 'energy_uncertainty_uncertainty'"):
        field("energy_uncertainty_uncertainty")
    with pytest.raises(FieldError, match="No field is called 'enrgy_uncertainty'"):
        field("enrgy_uncertainty")
