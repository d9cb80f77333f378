"""TorchSim with a model of geoeq: a batch of systems is what ASE makes of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from geoeq.errors import InputError
from geoeq.models import EGNN, Dipole, Forces, GraphScalar, NodeVector
from geoeq.simulate import GeoeqCalculator

torch_sim = pytest.importorskip("torch_sim")
from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from geoeq.simulate.engines.torchsim import TorchSimModel  # noqa: E402


def crystals():
    """Three systems of different sizes, elements and cells; one is left-handed."""
    skew = [[1.0, 0.2, 0.1], [0.0, 1.1, -0.3], [0.1, 0.0, 0.9]]
    systems = [bulk("Si", cubic=True), bulk("NaCl", "rocksalt", a=5.64), bulk("Fe", cubic=True) * (2, 1, 1)]
    systems[0].set_cell(systems[0].cell.array @ skew, scale_atoms=True)
    systems[2].cell[[0, 1]] = systems[2].cell[[1, 0]]
    for seed, atoms in enumerate(systems):
        atoms.rattle(0.1, seed=seed)
    return systems


def network(*heads, dtype=torch.float64):
    torch.manual_seed(0)
    return EGNN(list(heads) or [GraphScalar("energy")], width=16, layers=2, cutoff=4.0).to(dtype)


def nve(model, step):
    """Functions that begin and advance dynamics at constant energy, in TorchSim 0.3 and in newer ones."""
    cold = torch.tensor(0.0, dtype=torch.float64)
    if hasattr(torch_sim, "nve_step"):
        return lambda state: torch_sim.nve_init(state, model, kT=cold), lambda state: torch_sim.nve_step(
            state, model, dt=step
        )
    return torch_sim.integrators.nve(model, dt=step, kT=cold)


def cell_optimizer():
    """Arguments of ``torch_sim.optimize`` for positions and cells, in TorchSim 0.3 and in newer ones."""
    if hasattr(torch_sim, "Optimizer"):
        return {"optimizer": torch_sim.Optimizer.fire, "init_kwargs": {"cell_filter": torch_sim.CellFilter.frechet}}
    return {"optimizer": torch_sim.optimizers.frechet_cell_fire}


def state_of(systems, model):
    return torch_sim.io.atoms_to_state(systems, model.device, model.dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_a_batch_is_its_systems(dtype, tolerance):
    model = TorchSimModel(network(dtype=dtype), "cpu")
    found = model(state_of(crystals(), model))
    assert {value.dtype for value in found.values()} == {torch.float64}
    start = 0
    for place, atoms in enumerate(crystals()):
        atoms.calc = GeoeqCalculator(network(dtype=dtype), "cpu")
        assert found["energy"][place] == pytest.approx(atoms.get_potential_energy(), abs=10 * tolerance)
        forces = found["forces"][start : start + len(atoms)]
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=tolerance)
        np.testing.assert_allclose(found["stress"][place], atoms.get_stress(voigt=False), atol=tolerance)
        start += len(atoms)


def test_passes_the_check_of_torchsim():
    model = TorchSimModel(network(), "cpu")
    validate_model_outputs(model, model.device, model.dtype)


def test_options_of_other_models_change_nothing():
    model = TorchSimModel(network(), "cpu")
    state = state_of(crystals(), model)
    torch.testing.assert_close(model(state, retain_graph=False), model(state), rtol=0, atol=0)


def test_constant_energy_is_that_of_ase():
    systems = crystals()
    for seed, atoms in enumerate(systems):
        spread = np.sqrt(units.kB * 300 / atoms.get_masses())[:, None]
        atoms.set_velocities(spread * np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    model = TorchSimModel(network(), "cpu")
    state = state_of(systems, model)
    step = torch.tensor(1 * units.fs, dtype=torch.float64)
    begin, advance = nve(model, step)
    moving = begin(state)
    moving.momenta = torch.as_tensor(np.concatenate([atoms.get_momenta() for atoms in systems]))
    for _ in range(40):
        moving = advance(moving)
    energies = []
    for atoms in systems:
        atoms.calc = GeoeqCalculator(network(), "cpu")
        VelocityVerlet(atoms, 1 * units.fs).run(40)
        energies.append(atoms.get_potential_energy())
    np.testing.assert_allclose(moving.energy, energies, atol=1e-9)
    momenta = np.concatenate([atoms.get_momenta() for atoms in systems])
    np.testing.assert_allclose(moving.momenta, momenta, atol=1e-9)


def test_relaxes_cells_to_those_of_ase(ours):
    model = TorchSimModel(ours().model, "cpu")
    systems = [bulk("Ar", a=a, cubic=True) for a in (5.1, 5.45)]
    relaxed = torch_sim.optimize(
        systems,
        model,
        **cell_optimizer(),
        max_steps=600,
        convergence_fn=torch_sim.generate_force_convergence_fn(1e-4, include_cell_forces=True),
    )
    reference = systems[0]
    reference.calc = ours()
    BFGS(FrechetCellFilter(reference), logfile=None).run(fmax=1e-5, steps=100)
    np.testing.assert_allclose(relaxed.energy, reference.get_potential_energy(), atol=1e-5)


def test_open_systems_have_no_stress():
    systems = crystals()[:2]
    for atoms in systems:
        atoms.pbc = False
    model = TorchSimModel(network(), "cpu")
    found = model(state_of(systems, model))
    assert set(found) == {"energy", "forces"}
    for place, atoms in enumerate(systems):
        atoms.calc = GeoeqCalculator(network(), "cpu")
        assert found["energy"][place] == pytest.approx(atoms.get_potential_energy(), abs=1e-12)


def test_slabs_are_periodic_in_two_directions():
    model = TorchSimModel(network(), "cpu")
    slab = crystals()[0]
    slab.pbc = [True, True, False]
    state = state_of([slab, slab], model)
    if isinstance(state.pbc, bool):
        pytest.skip("TorchSim 0.3 has slabs only as open systems")
    slab.calc = GeoeqCalculator(network(), "cpu")
    np.testing.assert_allclose(model(state)["energy"], slab.get_potential_energy(), atol=1e-12)
    np.testing.assert_allclose(model(state)["forces"][: len(slab)], slab.get_forces(), atol=1e-12)


def test_says_what_it_gives():
    model = TorchSimModel(Forces(network()), "cpu", stress=False)
    assert model.conservative
    assert not model.compute_stress
    direct = TorchSimModel(network(GraphScalar("energy"), NodeVector("forces")), "cpu")
    assert not direct.conservative
    with pytest.raises(InputError, match="no energy and no forces"):
        TorchSimModel(network(Dipole()), "cpu")
    with pytest.raises(InputError, match="fewer digits"):
        TorchSimModel(network(), "cpu", dtype=torch.float32)
