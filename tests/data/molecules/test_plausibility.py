"""Drawings, missing hydrogens and placeholders are refused; what is missing is built on request only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, io
from ase.build import graphene, molecule

from geoeq.data import load
from geoeq.data.molecules import conformers
from geoeq.data.molecules.molecule_files import read_molecules
from geoeq.data.structures import from_smiles, read_structures
from geoeq.data_doctor import diagnose
from geoeq.errors import DataError, InputError

#: The carbon atoms of heptane, as a drawing.
CHAIN = [("C", 1.3 * i, 0.75 * (i % 2), 0.0) for i in range(7)]
METHANE = [("C", 0, 0, 0), ("H", 1, 0, 0), ("H", -1, 0, 0), ("H", 0, 1, 0), ("H", 0, -1, 0)]


def write(folder: Path, atoms: list, bonds: list, program: str = "x", extra: str = "") -> Path:
    path = folder / "x.sdf"
    text = f"name\n  {program}\n\n{len(atoms):3d}{len(bonds):3d}  0  0  0  0            999 V2000\n"
    text += "".join(f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0  0  0\n" for symbol, x, y, z in atoms)
    text += "".join(f"{one:3d}{two:3d}{order:3d}  0\n" for one, two, order in bonds)
    path.write_text(f"{text}{extra}M  END\n$$$$\n")
    return path


def star(count: int) -> list[tuple[int, int, int]]:
    return [(1, number, 1) for number in range(2, count + 1)]


@pytest.mark.parametrize(
    ("atoms", "bonds", "program", "message"),
    [
        (METHANE, star(5), "RDKit 2D", "its second line says '2D': it is a drawing"),
        (METHANE, star(5), "Mrv1810 01011912002D", "its second line says '2D': it is a drawing"),
        (METHANE, star(5), "RDKit          3D", "its atoms lie in one plane"),
        (CHAIN, [(i, i + 1, 1) for i in range(1, 7)], "RDKit          3D", "it lacks 16 hydrogens"),
    ],
)
def test_a_molecule_that_is_no_geometry(tmp_path: Path, atoms: list, bonds: list, program: str, message: str) -> None:
    path = write(tmp_path, atoms, bonds, program)
    for read in (read_structures, load):
        with pytest.raises(DataError, match=message):
            read(path)
    (structure,) = read_structures(path, conformers=True)
    expected = from_smiles(["C" if atoms is METHANE else "CCCCCCC"])[0].atoms
    np.testing.assert_array_equal(structure.atoms.positions, expected.positions)


def test_flat_molecules_radicals_and_ions_are_geometries(tmp_path: Path) -> None:
    water = [("O", 0, 0, 0), ("H", 0.96, 0, 0), ("H", -0.24, 0.93, 0)]
    assert str(read_structures(write(tmp_path, water, star(3), "3D"))[0].atoms.symbols) == "OH2"
    for bonds, extra in ([(1, 2, 1)], "M  RAD  1   1   2\n"), ([(1, 2, 1)], "M  CHG  1   1  -1\n"):
        read_structures(write(tmp_path, water[:2], bonds, "3D", extra))


@pytest.mark.parametrize(
    ("symbol", "message"),
    [("D", "is D: write H"), ("T", "is T: write H"), ("R#", "is a placeholder"), ("*", "is a placeholder")],
)
def test_what_is_no_element(tmp_path: Path, symbol: str, message: str) -> None:
    path = write(tmp_path, [("O", 0, 0, 0), (symbol, 0.96, 0, 0), ("H", -0.2, 0.9, 0)], star(3), "3D")
    for conformer in (False, True):
        with pytest.raises(DataError, match=f"molecule 1, atom 2 is .*{message.split()[-1]}"):
            read_structures(path, conformers=conformer)


def test_files_without_bonds_and_the_doctor(tmp_path: Path) -> None:
    cases = {
        "no hydrogens": Atoms("C7", [row[1:] for row in CHAIN]),
        "in one plane": Atoms("CH4", [row[1:] for row in METHANE]),
    }
    for message, atoms in cases.items():
        io.write(tmp_path / "x.xyz", atoms)
        with pytest.raises(DataError, match=message):
            read_structures(tmp_path / "x.xyz")
        (finding,) = [one for one in diagnose(load(tmp_path / "x.xyz")).of("error") if one.check == "molecules"]
        assert message in finding.text


@pytest.mark.parametrize("name", ["CO2", "CH3OH", "C6H6", "CCl4", "C2F4", "C60", "graphene", "CO", "CN", "CS2"])
def test_complete_molecules_are_read(tmp_path: Path, name: str) -> None:
    flat = graphene()
    flat.center(vacuum=5, axis=2)
    atoms = Atoms("CCl4", molecule("CCl4").positions) if name == "CCl4" else None
    atoms = atoms or (flat if name == "graphene" else molecule(name))
    io.write(tmp_path / "x.xyz", atoms)
    read_structures(tmp_path / "x.xyz")


def test_one_geometry_for_all_smiles_of_a_molecule() -> None:
    one, other = (from_smiles([text])[0].atoms for text in ("CCOCC(C)N", "NC(C)COCC"))
    np.testing.assert_array_equal(one.numbers, other.numbers)
    np.testing.assert_array_equal(one.positions, other.positions)


def test_a_column_that_occurs_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("smiles,name,SMILES\nC,methane,CC\n")
    with pytest.raises(DataError, match="it has the column 'smiles' twice"):
        read_molecules(str(path))


def test_isotopes_of_smiles_keep_their_masses() -> None:
    masses = from_smiles(["[2H]O"])[0].atoms.get_masses()
    assert sorted(masses) == pytest.approx([1.008, 2.0141, 15.999], abs=1e-3)
    with pytest.raises(InputError, match=r"placeholder '\*'"):
        from_smiles(["*CC"])


def test_embedding_falls_back_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    from rdkit.Chem import rdDistGeom

    used: list[bool] = []
    original = rdDistGeom.EmbedMultipleConfs

    def embed(molecule: object, count: int, settings: rdDistGeom.EmbedParameters) -> list[int]:
        used.append(settings.useRandomCoords)
        assert 0 < settings.timeout <= 600
        return list(original(molecule, count, settings)) if settings.useRandomCoords else []

    monkeypatch.setattr(rdDistGeom, "EmbedMultipleConfs", embed)
    assert conformers.embed(conformers.parse_smiles("CCO")[0], 0) == [0]
    assert used == [False, True]
