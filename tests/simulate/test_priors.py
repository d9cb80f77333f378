"""Priors in a simulation: energies of atoms and net charges through ASE, and one graph of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from geoeq.errors import InputError
from geoeq.geometry.random_structures import random_batch
from geoeq.models import EGNN, ZBL, Coulomb, GraphScalar, NodeScalar, WithPriors
from geoeq.simulate import GeoeqCalculator
from geoeq.simulate.engines.atomic_energies import trace_atomic_energies
from geoeq.simulate.engines.graph_inputs import graph_inputs
from geoeq.simulate.engines.tracing import example_inputs, output_names, trace
from geoeq.simulate.potential import as_potential


def model(*priors, **options):
    torch.manual_seed(0)
    heads = [GraphScalar("energy", atomic=True), NodeScalar("charges", conserve=True)]
    return WithPriors(EGNN(heads, width=8, layers=1, cutoff=4.0, **options).double(), priors)


def test_ase_has_energies_of_atoms_and_the_net_charge():
    atoms = molecule("H2O")
    atoms.calc = GeoeqCalculator(model(ZBL(cutoff=2.0), Coulomb()))
    energies = atoms.get_potential_energies()
    assert energies.sum() == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    assert abs(atoms.get_charges().sum()) < 1e-12
    neutral = atoms.get_forces()
    atoms.info["total_charge"] = 1
    atoms.calc.reset()
    assert atoms.get_charges().sum() == pytest.approx(1)
    assert np.abs(atoms.get_forces() - neutral).max() > 1e-3


def test_a_crystal_keeps_the_stress_of_its_priors():
    """Compressed, its nuclei push: the prior's part of the stress is negative, as ASE counts."""
    stresses = []
    for prior in (ZBL(cutoff=3.5), ZBL(cutoff=0.5)):  # the second is too short for a pair
        atoms = bulk("Si", a=4.6)
        atoms.calc = GeoeqCalculator(model(prior))
        stresses.append(atoms.get_stress()[:3])
    assert (stresses[0] - stresses[1] < -1e-3).all()


@pytest.mark.slow
def test_one_graph_has_what_the_model_gives():
    potential = as_potential(model(ZBL(), ZBL(cutoff=3.0), elements=[1, 6, 7, 8, 16]), "cpu")
    data = random_batch((5, 9, 3), periodic=True)
    data.pos = 0.8 * data.pos
    inputs, expected = graph_inputs(data, 4.0), potential(data)
    found = dict(zip(output_names(potential), trace(potential, example_inputs(potential)).module()(*inputs)))
    for name in ("energy", "atomic_energies", "forces"):
        torch.testing.assert_close(found[name], expected[name])
    assert (expected["energy"] - potential.model.model(data)["energy"]).min() > 1e-2
    atoms = trace_atomic_energies(potential.model, example_inputs(potential))(*inputs)
    torch.testing.assert_close(atoms, expected["atomic_energies"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "said"), [(ZBL(cutoff=4.5), "ZBL reaches 4.5 Å"), (Coulomb(), "Coulomb reaches inf")]
)
def test_one_graph_without_the_edges_of_a_prior_is_refused(prior, said):
    potential = as_potential(model(prior), "cpu")
    with pytest.raises(InputError, match=said):
        trace(potential, example_inputs(potential))
