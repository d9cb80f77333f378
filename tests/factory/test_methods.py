"""Methods by name and by class path, and the numbers of tblite."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.units import Bohr, Hartree

from geoeq.errors import InputError, MissingExtraError
from geoeq.factory.methods import find_method
from geoeq.factory.xtb import XTB


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gfn3", {}, "Did you mean 'gfn"),
        ("ase.calculators.emt.ENT", {}, "has no object 'ENT'. Did you mean 'EMT'"),
        ("no_such_package.Calculator", {}, "there is no module 'no_such_package'"),
        ("ase.calculators.emt.EMT", {"depth": 3}, "No argument is called 'depth'"),
        ("gfn2", {"depth": 3}, "'depth': 3} are invalid"),
        ("ase.Atoms", {}, "not a calculator of ASE with energy and forces"),
    ],
)
def test_what_is_no_method_is_refused(name: str, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_method(name, arguments)


def test_a_class_path_is_the_calculator() -> None:
    named, short = find_method("ase.calculators.emt.EMT"), find_method("emt")
    assert type(named.make()) is type(short.make())
    assert named.fields == short.fields == ("energy", "forces")


def test_arguments_are_put_over_those_of_the_method() -> None:
    argon = Atoms("Ar2", [(0, 0, 0), (0, 0, 3.4 * 2 ** (1 / 6))])
    argon.calc = find_method("lj", {"rc": 200.0, "smooth": False}).make()
    assert argon.get_potential_energy() == pytest.approx(-0.01034, rel=1e-4)
    argon.calc = find_method("lj", {"epsilon": 0.02068, "rc": 200.0, "smooth": False}).make()
    assert argon.get_potential_energy() == pytest.approx(-0.02068, rel=1e-4)


def test_a_method_without_electrons_refuses_ions_and_spins() -> None:
    emt = find_method("emt")
    emt.make(0, 2)
    with pytest.raises(InputError, match=r"does not support charges; this structure has -1 e"):
        emt.make(-1, 1)
    with pytest.raises(InputError, match="does not support spins"):
        emt.make(0, 3)


def test_without_tblite_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.interface", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[xtb\]"):
        find_method("gfn2")


def test_the_numbers_are_those_of_tblite() -> None:
    interface = pytest.importorskip("tblite.interface")
    atoms = molecule("CH3CH2OH")
    direct = interface.Calculator("GFN1-xTB", atoms.numbers, atoms.positions / Bohr)
    direct.set("verbosity", 0)
    result = direct.singlepoint()
    atoms.calc = find_method("gfn1").make()
    assert atoms.get_potential_energy() == pytest.approx(result.get("energy") * Hartree, abs=1e-6)
    assert np.allclose(atoms.get_forces(), -result.get("gradient") * Hartree / Bohr, atol=1e-4)
    levels = result.get("orbital-energies") * Hartree
    assert atoms.calc.get_property("homo", atoms) == pytest.approx(levels[9], abs=1e-4)  # of 20 valence electrons
    assert atoms.calc.get_property("gap", atoms) == pytest.approx(levels[10] - levels[9], abs=1e-4)
    assert atoms.get_charges().sum() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("name", "charge", "multiplicity"), [("CH3", 0, 2), ("HCOOH", -1, 2), ("NH3", 1, 2)])
def test_forces_of_gfn2_are_derivatives(name: str, charge: int, multiplicity: int) -> None:
    pytest.importorskip("tblite")
    atoms = molecule(name)
    atoms.rattle(0.05, seed=1)
    atoms.calc = XTB(charge=charge, multiplicity=multiplicity, accuracy=1e-4)
    forces = atoms.get_forces()
    energies = []
    for move in (1e-3, -2e-3):
        atoms.positions[0, 1] += move
        energies.append(atoms.get_potential_energy())
    assert (energies[1] - energies[0]) / 2e-3 == pytest.approx(forces[0, 1], abs=2e-4)
    assert atoms.get_charges().sum() == pytest.approx(charge, abs=1e-6)


def test_the_dipole_of_an_ion_does_not_depend_on_the_origin() -> None:
    pytest.importorskip("tblite")
    ion = Atoms("OH", [(0, 0, 0), (0, 0, 0.97)])
    ion.calc = XTB(charge=-1)
    here = ion.get_dipole_moment()
    ion.positions += 7.0
    assert np.allclose(ion.get_dipole_moment(), here, atol=1e-5)
    assert abs(here[2]) > 0.1


def test_a_radical_has_its_lone_electron_in_the_highest_orbital() -> None:
    pytest.importorskip("tblite")
    radical, cation = molecule("CH3"), molecule("CH3")
    radical.calc, cation.calc = XTB(multiplicity=2), XTB(charge=1)
    homo, lumo = (radical.calc.get_property(name, radical) for name in ("homo", "lumo"))
    assert homo < lumo
    assert radical.calc.get_property("gap", radical) == lumo - homo
    assert cation.calc.get_property("gap", cation) != pytest.approx(lumo - homo, abs=0.5)


def test_a_crystal_is_periodic() -> None:
    pytest.importorskip("tblite")
    silicon = bulk("Si")
    silicon.calc = XTB()
    energy = silicon.get_potential_energy()
    silicon.positions[1] += silicon.cell.array[0]  # its image
    assert silicon.get_potential_energy() == pytest.approx(energy, abs=1e-4)
    assert silicon.get_forces() == pytest.approx(np.zeros((2, 3)), abs=1e-3)


@pytest.mark.parametrize(("arguments", "message"), [({"method": "PM7"}, "not 'PM7'"), ({"multiplicity": 0}, "not 0")])
def test_xtb_refuses_what_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        XTB(**arguments)  # type: ignore[arg-type]
