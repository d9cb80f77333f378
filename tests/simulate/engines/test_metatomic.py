"""A file of metatomic gives what the model gives, in the engine of metatomic for ASE."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet

import geoeq.models
from geoeq.cli.main import main
from geoeq.errors import InputError
from geoeq.geometry.random_structures import random_batch
from geoeq.models import EGNN, GraphScalar, NodeVector
from geoeq.models.checkpoint import save_checkpoint
from geoeq.simulate import GeoeqCalculator
from geoeq.simulate.engines.atomic_energies import interaction_range, trace_atomic_energies
from geoeq.simulate.engines.graph_inputs import graph_inputs
from geoeq.simulate.engines.tracing import example_inputs
from geoeq.simulate.engines.verification import TOLERANCES


def network(*heads, name="EGNN", dtype=torch.float64, **changes):
    torch.manual_seed(0)
    cls = getattr(geoeq.models, name)
    arguments = {key: value for key, value in cls.example().arguments.items() if key != "heads"} | changes
    return cls(list(heads) or [GraphScalar("energy")], **arguments).to(dtype).eval()


def silicon():
    atoms = bulk("Si", cubic=True)
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.2, 0.1], [0.0, 1.1, -0.3], [0.1, 0.0, 0.9]], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


@pytest.mark.parametrize(("layers", "reach"), [(1, 3.0), (2, 6.0), (3, 9.0)])
def test_the_range_is_that_of_the_layers(layers, reach):
    model = network(layers=layers, cutoff=3.0)
    graph = trace_atomic_energies(model.requires_grad_(False), example_inputs(model))
    assert interaction_range(graph, model) == reach


def test_what_looks_at_whole_structures_has_no_range():
    model = network(cutoff=3.0)

    def energies(positions, numbers, batch, cells, edges, shifts):
        return positions.square().sum(1) * positions.mean()

    assert interaction_range(energies, model) == math.inf


def test_energies_of_atoms_add_up():
    model = network(cutoff=4.0).requires_grad_(False)
    model.heads[0].references[:10] = torch.arange(10.0)
    graph = trace_atomic_energies(model, example_inputs(model))
    batch = random_batch((7, 1, 12), periodic=True)
    found = graph(*graph_inputs(batch, 4.0))
    sums = torch.zeros(3, dtype=torch.float64).index_add(0, batch.batch, found)
    torch.testing.assert_close(sums, model(batch)["energy"], rtol=0, atol=1e-12)


@pytest.fixture(scope="module")
def exporter():
    pytest.importorskip("metatomic")
    from geoeq.simulate.engines.metatomic import export_metatomic

    return export_metatomic


def calculator(path):
    from metatomic_ase import MetatomicCalculator

    return MetatomicCalculator(str(path), device="cpu", check_consistency=True)


def test_in_ase_it_is_the_model(exporter, tmp_path):
    model = network(layers=2, cutoff=4.0)
    assert exporter(model, tmp_path / "out.pt") < 1e-12
    for make in (silicon, lambda: molecule("CH3CH2OH"), lambda: molecule("H")):
        atoms, expected = make(), make()
        atoms.calc, expected.calc = calculator(tmp_path / "out.pt"), GeoeqCalculator(model, "cpu")
        assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-12)
        if atoms.pbc.all():
            np.testing.assert_allclose(atoms.get_stress(), expected.get_stress(), atol=1e-12)


def test_constant_energy_is_that_of_the_model(exporter, tmp_path):
    model = network(layers=2, cutoff=4.0)
    exporter(model, tmp_path / "out.pt")
    ends = []
    for potential in (calculator(tmp_path / "out.pt"), GeoeqCalculator(model, "cpu")):
        atoms = silicon()
        atoms.set_momenta(3 * np.random.default_rng(0).normal(size=(8, 3)))
        atoms.calc = potential
        VelocityVerlet(atoms, units.fs).run(40)
        ends.append(np.append(atoms.positions.ravel(), atoms.get_total_energy()))
    np.testing.assert_allclose(*ends, atol=1e-10)


def test_an_engine_may_ask_for_some_atoms(exporter, tmp_path):
    """As one that cuts a structure into parts does: the parts add up."""
    from metatensor.torch import Labels
    from metatomic.torch import ModelEvaluationOptions, ModelOutput, load_atomistic_model

    from geoeq.simulate.engines.metatomic import metatomic_systems

    model = network(layers=2, cutoff=4.0)
    exporter(model, tmp_path / "out.pt")
    loaded = load_atomistic_model(str(tmp_path / "out.pt"))
    batch = random_batch((6, 9), periodic=True)
    systems = metatomic_systems(graph_inputs(batch, 4.0), loaded.requested_neighbor_lists()[0], torch.float64)

    def energies(kind, chosen=None):
        asked = {"energy": ModelOutput(unit="eV", sample_kind=kind)}
        labels = None if chosen is None else Labels(["system", "atom"], torch.tensor(chosen, dtype=torch.int32))
        options = ModelEvaluationOptions(length_unit="Angstrom", outputs=asked, selected_atoms=labels)
        return loaded(systems, options, check_consistency=True)["energy"].block().values.squeeze(1)

    total, each = energies("system"), energies("atom")
    torch.testing.assert_close(total, model(batch)["energy"].detach(), rtol=0, atol=1e-12)
    assert each.shape == (15,)
    part = [[0, 1], [0, 4], [1, 0], [1, 8]]
    torch.testing.assert_close(energies("atom", part), each[[1, 4, 6, 14]])
    torch.testing.assert_close(energies("system", part), torch.stack([each[[1, 4]].sum(), each[[6, 14]].sum()]))


def test_what_metatomic_cannot_hold_is_refused(exporter, tmp_path):
    out = tmp_path / "out.pt"
    with pytest.raises(InputError, match=r"suffix \.pt\."):
        exporter(network(cutoff=4.0), tmp_path / "out.pt2")
    with pytest.raises(InputError, match="no cutoff"):
        exporter(network(cutoff=None), out)
    with pytest.raises(InputError, match="not a sum over atoms"):
        exporter(network(GraphScalar("energy", after_pooling=True), cutoff=4.0), out)
    with pytest.raises(InputError, match="its derivatives"):
        exporter(network(GraphScalar("energy"), NodeVector("forces"), cutoff=4.0), out)
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", geoeq.models.NETWORKS)
def test_every_network(name, dtype, exporter, tmp_path):
    model = network(name=name, dtype=dtype)
    if model.cutoff is None:
        model = network(name=name, dtype=dtype, cutoff=4.0)
    error = exporter(model, tmp_path / "out.pt")
    assert error <= TOLERANCES[str(dtype).removeprefix("torch.")]


def test_the_command(exporter, tmp_path, capsys):
    save_checkpoint(EGNN([GraphScalar("energy")], width=8, layers=1, cutoff=4.0), tmp_path / "run")
    assert main(["export", str(tmp_path / "run"), str(tmp_path / "out.pt"), "--dtype", "float64"]) == 0
    assert "metatomic" in capsys.readouterr().out
    assert (tmp_path / "out.pt").is_file()
