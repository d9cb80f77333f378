"""What ASE does with a calculator of geoeq is what it does with its own, of the same potential."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms
from ase.eos import EquationOfState
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.md.nose_hoover_chain import IsotropicMTKNPT
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons
from ase.vibrations import Vibrations, VibrationsData

import geoeq.models
from geoeq import kernels
from geoeq.errors import (
    CellError,
    CheckpointError,
    CoincidentAtomsError,
    EmptyGraphError,
    ExtentError,
    InputError,
    NonFiniteError,
    UnknownElementError,
)
from geoeq.kernels.llvm.compiler import compiled, unavailable
from geoeq.models import (
    EGNN,
    Dipole,
    Forces,
    GraphScalar,
    NodeFeatures,
    NodeScalar,
    NodeVector,
    TensorFieldNetwork,
)
from geoeq.models.checkpoint import save_checkpoint
from geoeq.simulate import GeoeqCalculator

A = 5.3


def crystal(repeat=1):
    atoms = bulk("Ar", a=A, cubic=True) * repeat
    atoms.rattle(0.1, seed=1)
    return atoms


def cluster():
    atoms = bulk("Ar", a=A, cubic=True) * 2
    atoms.pbc, atoms.cell = False, None
    atoms.rattle(0.1, seed=1)
    return atoms


def triclinic():
    atoms = crystal()
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.2, 0.1], [0.0, 1.1, -0.3], [0.1, 0.0, 0.9]], scale_atoms=True)
    return atoms


def left_handed():
    atoms = triclinic()
    atoms.cell[[0, 1]] = atoms.cell[[1, 0]]
    assert atoms.cell.handedness == -1
    return atoms


def slab():
    atoms = fcc111("Ar", (2, 2, 3), a=A, vacuum=8.0)
    atoms.rattle(0.1, seed=1)
    return atoms


def run(name, atoms):
    """One workflow of ASE; what comes out of it."""
    return WORKFLOWS[name](atoms)


def relaxed(atoms):
    BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-3, steps=15)
    return [atoms.positions, atoms.cell.array, atoms.get_potential_energy()]


def fired(atoms):
    FIRE(atoms, logfile=None).run(fmax=1e-3, steps=20)
    return [atoms.positions]


def heat(atoms):
    """Random velocities of 40 K."""
    spread = np.sqrt(units.kB * 40 / atoms.get_masses())[:, None]
    atoms.set_velocities(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))


def moved(integrator):
    def simulate(atoms):
        heat(atoms)
        integrator(atoms).run(60)
        return [atoms.positions, atoms.get_velocities(), atoms.cell.array, atoms.get_total_energy()]

    return simulate


def fixed(atoms):
    atoms.set_constraint(FixAtoms([0, 3]))
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=10)
    return [atoms.positions, atoms.get_forces()]


def bands(atoms):
    phonons = Phonons(bulk("Ar", a=A), atoms.calc, supercell=(3, 3, 3), delta=0.01)
    phonons.run()
    phonons.read()
    return [phonons.band_structure([[0, 0, 0], [0.5, 0, 0.5], [0.1, 0.2, 0.3]])]


def volumes(atoms):
    cells = [atoms.cell.array * scale for scale in np.linspace(0.96, 1.04, 7)]
    energies = []
    for cell in cells:
        atoms.set_cell(cell, scale_atoms=True)
        energies.append(atoms.get_potential_energy())
    return list(EquationOfState([abs(np.linalg.det(cell)) for cell in cells], energies).fit())


def barrier(atoms):
    images = [atoms.copy() for _ in range(5)]
    images[-1].positions[0] += [0.6, 0.5, 0.4]
    for image in images:
        image.calc = atoms.calc
    band = NEB(images, allow_shared_calculator=True, method="improvedtangent")
    band.interpolate(mic=True)
    BFGS(band, logfile=None).run(fmax=1e-3, steps=6)
    return [image.get_potential_energy() for image in images]


def vibrations(atoms):
    small = atoms[:4]
    small.calc = atoms.calc
    BFGS(small, logfile=None).run(fmax=1e-4, steps=200)
    found = Vibrations(small)
    found.run()
    return [np.sort(np.abs(found.get_energies()))]


WORKFLOWS = {
    "relaxation with the cell": relaxed,
    "FIRE": fired,
    "NVE": moved(lambda atoms: VelocityVerlet(atoms, 2 * units.fs)),
    "NVT": moved(
        lambda atoms: Langevin(
            atoms, 2 * units.fs, temperature_K=40, friction=0.01 / units.fs, fixcm=False, rng=np.random.RandomState(0)
        )
    ),
    "NPT": moved(
        lambda atoms: IsotropicMTKNPT(
            atoms,
            2 * units.fs,
            temperature_K=40,
            pressure_au=0.0,
            tdamp=100 * units.fs,
            pdamp=500 * units.fs,
        )
    ),
    "constraints": fixed,
    "phonons": bands,
    "equation of state": volumes,
    "NEB": barrier,
    "vibrations": vibrations,
}


@pytest.mark.parametrize("structure", [crystal, cluster, triclinic, left_handed, slab, lambda: crystal(2)])
def test_is_the_potential_of_ase(structure, ours, reference):
    atoms, expected = structure(), structure()
    atoms.calc, expected.calc = ours(), reference()
    assert atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-11)
    np.testing.assert_allclose(atoms.get_forces(), expected.get_forces(), atol=1e-12)
    if atoms.pbc.any():
        np.testing.assert_allclose(atoms.get_stress(), expected.get_stress(), atol=1e-14)
        assert atoms.get_volume() == pytest.approx(abs(np.linalg.det(atoms.cell.array)))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_does_what_ase_does(name, ours, reference, tmp_path, monkeypatch):
    found = {}
    for kind, calculator in {"ours": ours(), "reference": reference()}.items():
        (tmp_path / kind).mkdir()
        monkeypatch.chdir(tmp_path / kind)  # some workflows write files
        atoms = cluster() if name in ("vibrations",) else crystal()
        atoms.calc = calculator
        found[kind] = run(name, atoms)
    for first, second in zip(found["ours"], found["reference"], strict=True):
        energies = getattr(first, "energies", first), getattr(second, "energies", second)
        np.testing.assert_allclose(*energies, rtol=1e-6, atol=1e-7)


def test_energy_is_conserved(ours):
    atoms = crystal(2)
    atoms.calc = ours()
    heat(atoms)
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    before = atoms.get_total_energy()
    dynamics.run(400)
    drift = abs(atoms.get_total_energy() - before) / len(atoms) / 0.2
    assert drift < 1e-5  # eV/atom/ps
    assert atoms.calc.neighbor_list.rebuilds < 40


def test_hessian_gives_the_vibrations(ours):
    atoms = cluster()[:4]
    atoms.calc = ours()
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=400)
    hessian = atoms.calc.hessian(atoms)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-10)
    frequencies = np.sort(VibrationsData.from_2d(atoms, hessian).get_frequencies().real)
    assert np.abs(frequencies[:6]).max() < 0.1
    assert frequencies[6] > 5


def model(*heads, cutoff=4.0, **options):
    torch.manual_seed(0)
    return EGNN(list(heads) or [GraphScalar("energy")], width=8, layers=2, cutoff=cutoff, **options)


def test_offers_what_the_model_gives_and_nothing_else():
    calculator = GeoeqCalculator(model(GraphScalar("energy"), Dipole(), NodeScalar("charges")))
    expected = {"energy", "free_energy", "forces", "stress", "dipole", "charges"}
    assert set(calculator.implemented_properties) == expected
    atoms = bulk("Si", cubic=True)
    atoms.calc = calculator
    with pytest.raises(CellError, match="dipole depends on which periodic images"):
        atoms.get_dipole_moment()
    atoms.calc = GeoeqCalculator(model(GraphScalar("energy"), NodeScalar("charges")))
    assert atoms.get_stress().shape == (6,)
    atoms = molecule("H2O")
    atoms.calc = calculator
    assert atoms.get_dipole_moment().shape == (3,)
    assert atoms.get_charges().shape == (3,)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert set(GeoeqCalculator(model(cutoff=None)).implemented_properties) == {"energy", "free_energy", "forces"}
    assert GeoeqCalculator(model(Dipole())).implemented_properties == ["dipole"]
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_magnetic_moment()


def test_forces_that_are_no_derivatives_are_said_to_be_so():
    assert GeoeqCalculator(model()).conservative
    calculator = GeoeqCalculator(model(GraphScalar("energy"), NodeVector("forces")))
    assert not calculator.conservative
    assert "stress" not in calculator.implemented_properties


@pytest.mark.parametrize("name", geoeq.models.NETWORKS)
def test_every_family_simulates(name):
    """Forces of ASE's finite differences, with a neighbour list that is kept."""
    cls = getattr(geoeq.models, name)
    arguments = cls.example().arguments | {"heads": [GraphScalar("energy")], "cutoff": 4.0}
    torch.manual_seed(0)
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = GeoeqCalculator(cls(**arguments), dtype=torch.float64)
    forces = atoms.get_forces()
    shifted = atoms.copy()
    shifted.calc = atoms.calc
    energies = []
    for step in (1e-4, -1e-4):
        shifted.positions = atoms.positions
        shifted.positions[2, 1] += step
        energies.append(shifted.get_potential_energy())
    assert forces[2, 1] == pytest.approx((energies[1] - energies[0]) / 2e-4, abs=1e-6)


@pytest.mark.skipif(unavailable() is not None, reason="needs llvmlite")
def test_kernels_are_compiled_for_a_network_and_not_for_a_number_of_atoms():
    torch.manual_seed(0)
    network = TensorFieldNetwork([GraphScalar("energy")], width=7, layers=1, lmax=1, cutoff=4.0)
    calculator = GeoeqCalculator(network, "cpu")
    made = []
    for repeat in (3, 1, 2, (1, 1, 3), 4):
        atoms = bulk("Si", cubic=True) * repeat
        atoms.rattle(0.1, seed=0)
        atoms.calc = calculator
        before = compiled.cache_info().misses
        with kernels.use("llvm"):
            atoms.get_forces()
        made.append(compiled.cache_info().misses - before)
    assert made[0] > 0
    assert made[1:] == [0, 0, 0, 0]


def test_a_checkpoint_is_loaded(tmp_path):
    network = Forces(model(elements=[14]), stress=True)
    save_checkpoint(network, tmp_path)
    atoms = bulk("Si")
    atoms.calc = GeoeqCalculator(tmp_path)
    direct = bulk("Si")
    direct.calc = GeoeqCalculator(network)
    assert atoms.get_potential_energy() == direct.get_potential_energy()
    with pytest.raises(CheckpointError):
        GeoeqCalculator(tmp_path / "nothing")


def test_the_model_given_is_left_alone():
    network = model()
    GeoeqCalculator(network, dtype=torch.float64)
    assert network.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in network.parameters())


def test_float32_is_close_to_float64_far_from_the_origin():
    atoms = bulk("Si", cubic=True) * 2
    atoms.rattle(0.1, seed=0)
    found = []
    for dtype, shift in ((torch.float64, 0.0), (torch.float32, 1e4)):
        moved = atoms.copy()
        moved.positions += shift
        moved.calc = GeoeqCalculator(model(), dtype=dtype)
        found.append(moved.get_forces())
    np.testing.assert_allclose(*found, atol=1e-5 * np.abs(found[0]).max())


def test_there_is_no_stress_without_a_volume():
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 2.3]])
    atoms.calc = GeoeqCalculator(model())
    with pytest.raises(PropertyNotImplementedError, match="stress"):
        atoms.get_stress()
    atoms.cell = [20, 20, 20]
    with pytest.raises(PropertyNotImplementedError, match="stress"):  # a box that is not periodic
        atoms.get_stress()
    atoms.set_cell([5, 5, 0])
    atoms.pbc = [True, True, False]
    assert atoms.get_forces().shape == (2, 3)
    with pytest.raises(PropertyNotImplementedError, match="stress"):
        atoms.get_stress()


def with_nan(atoms):
    atoms.positions[3, 1] = np.nan


def with_infinity(atoms):
    atoms.positions[3, 1] = np.inf


def coincident(atoms):
    atoms.positions[3] = atoms.positions[2]


def unknown(atoms):
    atoms.numbers[:2] = [6, 79]


def without_atoms(atoms):
    del atoms[:]


def without_cell(atoms):
    atoms.cell = np.zeros((3, 3))


def flown_away(atoms):
    atoms.pbc = False
    atoms.positions[0] = 1e9


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (with_nan, NonFiniteError, "atom 3"),
        (with_infinity, NonFiniteError, "atom 3"),
        (coincident, CoincidentAtomsError, "same place"),
        (unknown, UnknownElementError, r"Known: Si. Unknown in this input: C, Au"),
        (without_atoms, EmptyGraphError, "no atoms"),
        (without_cell, CellError, "periodic along a"),
        (flown_away, ExtentError, "extends over"),
    ],
)
def test_bad_input_never_passes(spoil, error, words):
    atoms = bulk("Si", cubic=True)
    atoms.calc = GeoeqCalculator(model(elements=[14]))
    atoms.get_potential_energy()
    spoil(atoms)
    for ask in (atoms.get_potential_energy, atoms.get_forces):
        with pytest.raises(error, match=words):
            ask()


def test_a_relaxation_of_nonsense_ends_with_an_error():
    atoms = bulk("Si", cubic=True)
    atoms.calc = GeoeqCalculator(model())
    atoms.positions[0, 0] = np.nan
    with pytest.raises(NonFiniteError):
        BFGS(atoms, logfile=None).run(fmax=0.01, steps=3)


def test_a_model_without_anything_for_ase_is_refused():
    with pytest.raises(InputError, match="ASE needs one of"):
        GeoeqCalculator(model(NodeFeatures(3)))


def test_memory_that_is_not_enough(ours, monkeypatch):
    calculator = ours()
    atoms = crystal()
    atoms.calc = calculator

    def exhausted(data):
        raise torch.OutOfMemoryError("no memory is left\nand more")

    monkeypatch.setattr(calculator.model, "forward", exhausted)
    with pytest.raises(InputError, match="4 atoms do not fit into the memory of cpu: no memory is left"):
        atoms.get_forces()


def test_what_changed_is_seen_to_the_last_bit(ours):
    atoms = crystal()
    calculator = atoms.calc = ours()
    assert len(calculator.check_state(atoms)) == 6
    atoms.get_forces()
    assert calculator.check_state(atoms) == []
    changes = {
        "positions": lambda: atoms.positions.__setitem__((1, 2), np.nextafter(atoms.positions[1, 2], np.inf)),
        "numbers": lambda: atoms.numbers.__setitem__(0, 36),
        "cell": lambda: atoms.set_cell(1.001 * atoms.cell.array),
        "pbc": lambda: atoms.set_pbc((True, True, False)),
        "initial_charges": lambda: atoms.set_initial_charges([0.0] * len(atoms)),
        "initial_magmoms": lambda: atoms.set_initial_magnetic_moments([1.0] * len(atoms)),
        "total_charge": lambda: atoms.info.update(total_charge=1),
    }
    for name, change in changes.items():
        change()
        assert calculator.check_state(atoms) == [name]
        calculator.atoms = atoms.copy()
