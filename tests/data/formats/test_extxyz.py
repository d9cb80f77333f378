"""Extended xyz: specified and detected keys, units, cells, virials, free atoms, and unreadable files."""

from __future__ import annotations

import gzip
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from geoeq.data import Records, join, load, load_card
from geoeq.data.formats.extxyz import ExtxyzReader
from geoeq.data.formats.extxyz_text import parse_comment
from geoeq.data.structures import read_structures
from geoeq.errors import DataError

SAMPLE = Path(load_card("3bpa").folder, "sample", "train_300K.xyz.gz")


def read(path: Path, **options: object) -> Records:
    return join(ExtxyzReader(**options).read({path.name: path}), str(path))


def notes(path: Path, **options: object) -> str:
    return " ".join(ExtxyzReader(**options).survey({path.name: path}).notes)


def write(folder: Path, *comments: str, columns: str = "", rows: str = "") -> Path:
    """One molecule of two atoms for each comment line."""
    path = folder / "x.xyz"
    head = f"Properties=species:S:1:pos:R:3{columns} "
    path.write_text(
        "".join(f"2\n{head}{text}\nO 0 0 0{rows}\nH 0 0 {i + 1}{rows}\n" for i, text in enumerate(comments))
    )
    return path


def test_real_structures_are_what_ase_reads():
    records, frames = read(SAMPLE), ase.io.read(SAMPLE, index=":", format="extxyz")
    assert len(frames) == 20
    np.testing.assert_array_equal(records.ptr, np.arange(21) * 27)
    np.testing.assert_array_equal(records.numbers, np.concatenate([frame.numbers for frame in frames]))
    np.testing.assert_array_equal(records.positions, np.concatenate([frame.positions for frame in frames]))
    np.testing.assert_array_equal(records.columns["energy"], [frame.get_potential_energy() for frame in frames])
    np.testing.assert_array_equal(records.columns["forces"], np.concatenate([frame.get_forces() for frame in frames]))
    assert records.columns["energy"].dtype == np.float64
    assert records.cell is None, "there is a Lattice, but nothing repeats"


def test_what_ase_writes_is_read(tmp_path):
    random = np.random.default_rng(0)
    frames = []
    for size in (1, 4):
        atoms = ase.Atoms("HCNO"[:size], random.normal(size=(size, 3)) * 4, cell=random.normal(size=(3, 3)) * 9)
        atoms.pbc = [True, size == 4, False]
        stress = random.normal(size=6)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.5, forces=random.normal(size=(size, 3)), stress=stress)
        frames.append(atoms)
    ase.io.write(tmp_path / "x.extxyz", frames)
    records = read(tmp_path / "x.extxyz")
    np.testing.assert_allclose(records.cell, [atoms.cell.array for atoms in frames], atol=1e-7)
    np.testing.assert_array_equal(records.pbc, [atoms.pbc for atoms in frames])
    np.testing.assert_allclose(
        records.columns["stress"], [atoms.get_stress(voigt=False) for atoms in frames], atol=1e-7
    )
    np.testing.assert_allclose(
        records.columns["forces"], np.concatenate([atoms.get_forces() for atoms in frames]), atol=1e-7
    )


@pytest.mark.parametrize(
    "key", ["energy", "Energy", "REF_energy", "dft_energy", "TotEnergy", "QM_Energy", "mace.energy"]
)
def test_common_names_are_detected_and_reported(tmp_path, key):
    path = write(tmp_path, f"{key}=-3.25", f"{key}=7")
    assert read(path).columns["energy"].tolist() == [-3.25, 7.0]
    assert f"energy is read from the key '{key}' (detected)" in notes(path)


@pytest.mark.parametrize("key", ["forces", "force", "REF_forces", "dft_force", "Forces"])
def test_the_names_of_forces(tmp_path, key):
    path = write(tmp_path, "energy=1", columns=f":{key}:R:3", rows=" 1 2 3.5")
    np.testing.assert_array_equal(read(path).columns["forces"], [[1, 2, 3.5]] * 2)


def test_two_names_are_a_question(tmp_path):
    path = write(tmp_path, "energy=1 REF_energy=2")
    with pytest.raises(
        DataError, match=r"energy may be any of 'energy', 'REF_energy'. Choose one in a card, as in 'opt"
    ):
        read(path)
    with pytest.raises(DataError, match="energy may be any of"):
        load(path)
    assert read(path, keys={"energy": "REF_energy"}).columns["energy"].tolist() == [2]
    assert "energy" not in read(path, keys={"energy": None}).columns
    mixed = write(tmp_path, "energy=1", "REF_energy=2")
    with pytest.raises(DataError, match="energy may be any of"):
        read(mixed)


def test_a_specified_key_is_never_replaced(tmp_path):
    path = write(tmp_path, "energy=1", columns=":forces:R:3", rows=" 1 2 3")
    with pytest.raises(DataError, match=r"x.xyz: forces: No key is called 'REF_forces'. Did you mean 'forces'\?"):
        read(path, keys={"forces": "REF_forces"})
    path.write_text(path.read_text() + "1\n\nH 9 9 9\n")
    with pytest.raises(DataError, match=r"'energy' was specified for energy, but 1 of 2 structures lack it"):
        read(path, keys={"energy": "energy", "forces": None})


def test_a_quantity_that_some_structures_lack_is_reported(tmp_path):
    path = write(tmp_path, "energy=1", "nothing=2")
    assert "energy" not in read(path).columns
    assert "energy is not read: only 1 of 2 structures have 'energy'" in notes(path)
    assert "energy is not read" in " ".join(load(path).notes)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"enrgy": "x"}, "keys: No quantity is called 'enrgy'"),
        ({"energy": 3}, "the key of 'energy' must be a name in the file or null, not 3"),
        ({"stress": "a", "virial": "b"}, "specify stress or virial, not both"),
    ],
)
def test_wrong_keys(keys, message):
    with pytest.raises(ValueError, match=message):
        ExtxyzReader(keys=keys)


def test_a_virial_becomes_the_stress(tmp_path):
    lattice = 'Lattice="2 0 0 0 3 0 0 0 4" energy=0'
    path = write(tmp_path, f'{lattice} virial="24 1 2 1 48 3 2 3 72"')
    np.testing.assert_allclose(read(path).columns["stress"][0] * 24, [[-24, -1, -2], [-1, -48, -3], [-2, -3, -72]])
    six = write(tmp_path, f'{lattice} virials="24 48 72 3 2 1"')
    np.testing.assert_allclose(read(six).columns["stress"][0] * 24, [[-24, -1, -2], [-1, -48, -3], [-2, -3, -72]])
    vasp = read(six, order="vasp").columns["stress"][0] * 24
    np.testing.assert_allclose(vasp, [[-24, -3, -1], [-3, -48, -2], [-1, -2, -72]])
    opposite = read(six, keys={"virial": "-virials"}).columns["stress"]
    np.testing.assert_allclose(opposite, -read(six).columns["stress"])
    with pytest.raises(DataError, match=r"stress may be any of 'stress', 'virial \(as virial\)'"):
        read(write(tmp_path, f'{lattice} virial="1 2 3 4 5 6" stress="1 2 3 4 5 6"'))
    with pytest.raises(DataError, match="a virial can be converted to a stress only if the cell has a volume"):
        read(write(tmp_path, 'virial="1 2 3 4 5 6"'))
    with pytest.raises(DataError, match="the matrix is not symmetric"):
        read(write(tmp_path, f'{lattice} virial="24 1 2 5 48 3 2 3 72"'))


def test_free_atoms_are_left_out_and_are_the_zero_of_atomization_energies(tmp_path):
    path = write(tmp_path, "energy=-10.5", "energy=-11")
    atoms = "1\nconfig_type=IsolatedAtom energy=-7\nO 0 0 0\n1\nconfig_type=isolated_atom energy=-2\nH 0 0 0\n"
    path.write_text(atoms + path.read_text())
    records = read(path)
    assert records.columns["energy"].tolist() == [-10.5, -11]
    assert records.columns["atomization_energy"].tolist() == [-1.5, -2]
    assert "Free atoms are left out of the structures (H -2, O -7); atomization_energy" in notes(path)
    assert load(path).targets["atomization_energy"].tolist() == [-1.5, -2]
    path.write_text(atoms[atoms.index("1\nconfig_type=isolated") :] + write(tmp_path, "energy=-10.5").read_text())
    assert {*read(path).columns} == {"energy"}
    assert "there are none for O" in notes(path)


def test_ignored_weights_are_reported(tmp_path):
    assert "'config_weight' is not used" in notes(write(tmp_path, "energy=1 config_weight=3.0"))


def test_lengths_in_bohr(tmp_path):
    path = write(tmp_path, "energy=1")
    np.testing.assert_allclose(read(path, length="Bohr").positions[1], [0, 0, 0.529177], atol=1e-6)
    with pytest.raises(ValueError, match="length: 'eV' cannot be converted to 'Å'"):
        ExtxyzReader(length="eV")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('a=1 b="x y" c', {"a": "1", "b": "x y"}),
        ("a = 1 b='x y'", {"a": "1", "b": "x y"}),
        ('a={1 2} b=[[1, 2], [3, 4]] "c d"=5', {"a": "1 2", "b": "[[1, 2], [3, 4]]", "c d": "5"}),
        ('a="say \\"x\\" b=2" c=3', {"a": 'say \\"x\\" b=2', "c": "3"}),
        ("", {}),
    ],
)
def test_pairs(line, expected):
    assert parse_comment(line) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n\nH 0 0 0\n", r"structure 0 \(counted from 0\) cannot be read: it ends after 1 of 2 atoms"),
        ("1\n\nH 0 0 0\nx\n\n", r"structure 1 .* line 4 must be a number of atoms, not 'x'"),
        ("1\n\nH 0 0\n", "atom 0 has 3 columns instead of 4"),
        ("1\n\nXx 0 0 0\n", "there is no element 'Xx'"),
        ("1\nProperties=species:S:1:pos:R\nH 0 0 0\n", "Properties must be name:kind:width"),
        ("1\nProperties=species:S:1:pos:R:x\nH 0 0 0\n", "Properties has 'pos:R:x'"),
        ("1\nProperties=species:S:1\nH 0 0 0\n", "it has no column 'pos'"),
        ("1\nenergy=high\nH 0 0 0\n", "'energy' must be numbers, not 'high'"),
        ("1\nenergy=nan\nH 0 0 0\n", "energy must be 1 finite numbers"),
        ('1\nLattice="1 0 0 0 1 0"\nH 0 0 0\n', "Lattice must be 9 numbers"),
        ('1\nLattice="1 0 0 0 1 0 0 0 1" pbc="T T"\nH 0 0 0\n', 'pbc must have the form "T T F"'),
        ("1\n\nH 0 0 0\n\n1\n\nH 0 0 0\n", "line 4 before it is empty"),
        ("-1\n\n", "must be a number of atoms"),
        ("99999999999\n\n", "must be a number of atoms"),
        ("", "it contains no structures"),
    ],
)
def test_what_cannot_be_read(tmp_path, text, message):
    path = tmp_path / "x.xyz"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_named(tmp_path, seed):
    random = np.random.default_rng(seed)
    content = bytearray(SAMPLE.read_bytes() if seed % 2 else gzip.decompress(SAMPLE.read_bytes())[:6000])
    if seed % 4 < 2:
        content = content[: random.integers(len(content))]
    else:
        for place in random.integers(len(content), size=3):
            content[place] ^= 1 << random.integers(8)
    path = tmp_path / ("x.xyz.gz" if seed % 2 else "x.xyz")
    path.write_bytes(content)
    try:
        records = read(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        records.check("x")
        assert seed % 2 == 0, "gzip has a checksum"


@pytest.mark.parametrize("key", ["lattice", "LATTICE", "Lattice"])
def test_a_lattice_in_any_case_is_periodic(tmp_path, key):
    records = read(write(tmp_path, f'{key}="5 0 0 0 5 0 0 0 5" energy=1'))
    assert records.pbc.all()
    assert read(write(tmp_path, f'{key}="5 0 0 0 5 0 0 0 5" PBC="T T F"')).pbc.tolist() == [[True, True, False]]


def test_properties_in_any_case_declare_the_forces(tmp_path):
    path = write(tmp_path, "energy=1", columns=":forces:R:3", rows=" 1 2 3")
    path.write_text(path.read_text().replace("Properties", "properties"))
    np.testing.assert_array_equal(read(path).columns["forces"], [[1, 2, 3]] * 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\nenergy=1 energy=2\nH 0 0 0\n", "the key 'energy' occurs twice"),
        ('1\nLattice="1 0 0 0 1 0 0 0 1" lattice="2 0 0 0 2 0 0 0 2"\nH 0 0 0\n', "the key 'Lattice' occurs twice"),
        ("1\nProperties=species:S:1:pos:R:3:pos:R:3\nH 0 0 0 1 1 1\n", "has the column 'pos' twice"),
        ('1\ncell="5 0 0 0 5 0 0 0 5"\nH 0 0 0\n', "it has 'cell' but no Lattice"),
        ("2\n\n1 0 0 0\n2 0 0 1\n", r"it has the numbers 1, 2; these may be types or atomic numbers"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, text, message):
    path = tmp_path / "x.xyz"
    path.write_text(text)
    for reader in (read, read_structures):
        with pytest.raises(DataError, match=message):
            reader(path)


def test_elements_of_types_and_columns_of_atomic_numbers(tmp_path):
    path = tmp_path / "x.xyz"
    path.write_text("2\n\n1 0 0 0\n2 0 0 1\n")
    assert read(path, types={1: "Si", "2": "O"}).numbers.tolist() == [14, 8]
    path.write_text("2\nProperties=Z:I:1:pos:R:3\n1 0 0 0\n2 0 0 1\n")
    assert read(path).numbers.tolist() == [1, 2]
    with pytest.raises(ValueError, match="types: there is no element 'Sx'"):
        ExtxyzReader(types={1: "Sx"})
    with pytest.raises(ValueError, match="a type must be a number, not 'a'"):
        ExtxyzReader(types={"a": "Si"})
