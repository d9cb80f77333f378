"""What ASE would guess is refused: occupancies, types; and what it stores twice is read once."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms

from geoeq.data import Records, join, load
from geoeq.data.formats.ase_files import ASEReader
from geoeq.data.structures import read_structures
from geoeq.errors import DataError

CIF = """data_x
_cell_length_a 5.6
_cell_length_b 5.6
_cell_length_c 5.6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 0 0 OCCUPANCY
Cl1 Cl 0.5 0.5 0.5 1.0
"""

DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 10
0 10
0 10
ITEM: ATOMS id type x y z
1 1 0 0 0
2 2 0 0 1
"""

LAMMPS = """LAMMPS data file

2 atoms
2 atom types

0.0 10.0 xlo xhi
0.0 10.0 ylo yhi
0.0 10.0 zlo zhi

Atoms # atomic

1 1 0.0 0.0 0.0
2 2 0.0 0.0 0.96
"""


def with_types(path: Path) -> Records:
    return join(ASEReader(types={1: "O", 2: "H"}).read({path.name: path}), str(path))


def test_partial_occupancies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.cif"
    path.write_text(CIF.replace("OCCUPANCY", "1.0"))
    assert load(path).numbers.tolist() == [11, 17]
    path.write_text(CIF.replace("OCCUPANCY", "0.5"))
    for read in (load, read_structures):
        with pytest.raises(DataError, match=r"a site is occupied by 0.5 Na; geoeq reads ordered structures only"):
            read(path)
    path.write_text(CIF.replace("OCCUPANCY", "0.5") + "K1 K 0 0 0 0.5\n")
    with pytest.raises(DataError, match="a site is occupied by"):
        load(path)


def test_an_occupancy_of_each_atom(tmp_path: Path) -> None:
    path = tmp_path / "x.xyz"
    path.write_text("1\nProperties=species:S:1:pos:R:3:occupancy:R:1\nH 0 0 0 0.5\n")
    with pytest.raises(DataError, match=r"atom 0 \(H\) has the occupancy 0.5"):
        read_structures(path)


@pytest.mark.parametrize(("name", "text"), [("x.lammpstrj", DUMP), ("x.dump", DUMP), ("x.data", LAMMPS)])
def test_types_of_lammps_are_no_atomic_numbers(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    message = "without the section Masses" if text == LAMMPS else "instead of elements it has the numbers 1, 2"
    for read in (load, read_structures):
        with pytest.raises(DataError, match=message):
            read(path)
    assert with_types(path).numbers.tolist() == [8, 1]


def test_elements_and_masses_of_lammps(tmp_path: Path) -> None:
    path = tmp_path / "x.dump"
    path.write_text(DUMP.replace("id type", "id element").replace("\n1 1 ", "\n1 O ").replace("\n2 2 ", "\n2 H "))
    assert load(path).numbers.tolist() == [8, 1]
    path = tmp_path / "anything.lmp"
    path.write_text(LAMMPS.replace("Atoms #", "Masses\n\n1 15.999\n2 1.008\n\nAtoms #"))
    assert load(path).numbers.tolist() == [8, 1]
    (tmp_path / "y.dump").write_text(DUMP)
    with pytest.raises(DataError, match="the option 'types' has no element for the type 2"):
        join(ASEReader(types={1: "O"}).read({"y": tmp_path / "y.dump"}), "y")
    (tmp_path / "z.dump").write_text("ITEM: UNITS\nlj\n" + DUMP)
    with pytest.raises(DataError, match="its units are 'lj' of LAMMPS"):
        load(tmp_path / "z.dump")


@pytest.mark.parametrize("name", ["x.traj", "x.json", "x.db"])
@pytest.mark.parametrize("calculator", [EMT, LennardJones])
def test_the_energy_is_read_where_there_are_energies_of_atoms(tmp_path: Path, name: str, calculator: type) -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = calculator()
    energy = atoms.get_potential_energy()
    atoms.get_forces()
    atoms.calc.get_property("energies", atoms)
    if name.endswith("traj"):
        atoms.calc.results["energies"] = np.full(4, energy / 4)
    ase.io.write(tmp_path / name, atoms)
    dataset = load(tmp_path / name)
    assert dataset.targets["energy"][0] == pytest.approx(energy)
    np.testing.assert_allclose(dataset.targets["forces"], atoms.get_forces(), atol=1e-6)


def test_one_parser_reads_xyz_for_training_and_for_prediction(tmp_path: Path) -> None:
    path = tmp_path / "x.xyz"
    path.write_bytes(
        b"\xef\xbb\xbf2\nlattice='4 0 0 0 4 0 0 0 4' properties=species:S:1:pos:R:3:forces:R:3 title=\xc5ngstr\xf6m "
        b"energy=-1.5D+1\nO 0 0 0 1 2 3\nH 0 0 9.6D-1 -1 -2 -3.0d0\n"
    )
    dataset, (structure,) = load(path), read_structures(path)
    assert dataset.targets["energy"].tolist() == [-15]
    np.testing.assert_array_equal(dataset.targets["forces"], [[1, 2, 3], [-1, -2, -3]])
    assert dataset[0].pbc.all()
    assert structure.atoms.pbc.all()
    assert structure.atoms.cell.lengths().tolist() == [4, 4, 4]
    np.testing.assert_array_equal(structure.atoms.positions, [[0, 0, 0], [0, 0, 0.96]])
    assert structure.atoms.get_potential_energy() == -15
    np.testing.assert_array_equal(structure.atoms.get_forces(), dataset.targets["forces"])


def test_what_ase_adds_to_a_structure_is_kept(tmp_path: Path) -> None:
    atoms = molecule("CH3OH")
    atoms.set_velocities(np.ones((6, 3)))
    atoms.set_constraint(FixAtoms([0]))
    atoms.info["total_charge"] = 1.0
    ase.io.write(tmp_path / "x.xyz", atoms, format="extxyz", columns=["symbols", "positions", "momenta", "move_mask"])
    (tmp_path / "x.xyz.gz").write_bytes(gzip.compress((tmp_path / "x.xyz").read_bytes()))
    for name in ("x.xyz", "x.xyz.gz"):
        (structure,) = read_structures(tmp_path / name)
        np.testing.assert_allclose(structure.atoms.get_velocities(), 1, atol=1e-6)
        assert structure.atoms.constraints[0].index.tolist() == [0]
        assert structure.atoms.info["total_charge"] == 1
