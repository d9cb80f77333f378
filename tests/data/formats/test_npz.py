"""npz files: layouts of MD17, rMD17 and others, specified and stated units, and damaged or malicious files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase import units

from geoeq.data import Records, join, load, load_card
from geoeq.data.formats.npz import NpzReader
from geoeq.errors import DataError

SAMPLE = Path(load_card("rmd17").folder, "sample", "rmd17_ethanol.npz")


def read(path: Path, **options: object) -> Records:
    return join(NpzReader(**options).read({path.name: path}), str(path))


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    with np.load(SAMPLE) as sample:
        return dict(sample)


def test_rmd17(arrays):
    records = read(SAMPLE, length="Å")
    assert len(records.ptr) - 1 == 100
    assert records.numbers[:9].tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(records.positions, arrays["coords"].reshape(-1, 3))
    np.testing.assert_array_equal(records.columns["forces"], arrays["forces"].reshape(-1, 3))
    np.testing.assert_array_equal(records.columns["energy"], arrays["energies"])


def test_the_layout_of_sgdml_which_says_its_units(tmp_path, arrays):
    """Fortran's order, E of width 1, texts beside the numbers, as in the files of MD17 and MD22."""
    path = tmp_path / "md22.npz"
    np.savez(
        path,
        type=b"d",
        theory="PBE",
        r_unit="Ang",
        e_unit="kcal/mol",
        z=arrays["nuclear_charges"],
        R=np.asfortranarray(arrays["coords"]),
        E=arrays["energies"][:, None],
        F=np.asfortranarray(arrays["forces"]),
    )
    dataset = load(path)
    np.testing.assert_array_equal(dataset.positions, arrays["coords"].reshape(-1, 3))
    factor = units.kcal / units.mol
    np.testing.assert_allclose(dataset.targets["energy"], arrays["energies"] * factor, rtol=1e-15)
    np.testing.assert_allclose(dataset.targets["forces"], arrays["forces"].reshape(-1, 3) * factor, rtol=1e-15)
    assert dataset.targets["energy"].dtype == np.float64
    assert "energy is read from the key 'E' (detected)." in dataset.notes
    assert {part: len(places) for part, places in dataset.split().items()} == {"train": 80, "valid": 10, "test": 10}


def test_units_are_not_guessed(tmp_path):
    with pytest.raises(DataError, match=r"rmd17_ethanol.npz: it does not state its units. Specify them in a card"):
        load(SAMPLE)
    with pytest.raises(DataError, match="it does not state its units"):
        read(SAMPLE)
    np.savez(tmp_path / "x.npz", z=[1], R=np.zeros((1, 1, 3)), E=[1.0], r_unit="Ang", e_unit="bananas")
    with pytest.raises(DataError, match=r"x.npz: the unit in the file cannot be used: In the unit 'bananas'"):
        load(tmp_path / "x.npz")


def test_a_cell_and_specified_names(tmp_path):
    path = tmp_path / "x.npz"
    random = np.random.default_rng(0)
    cells = np.eye(3) * random.uniform(3, 4, size=(5, 1, 1))
    places = random.uniform(size=(5, 2, 3)).astype(np.float32)
    np.savez(path, where=places, z=["Na", "Cl"], cell=cells, pbc=[True, True, False], u=np.arange(5), f=places)
    options = {"length": "Bohr", "structure": {"positions": "where"}, "keys": {"energy": "u", "forces": "-f"}}
    records = read(path, **options)
    np.testing.assert_allclose(records.cell, cells * units.Bohr)
    assert records.pbc.tolist() == [[True, True, False]] * 5
    assert records.numbers.tolist() == [11, 17] * 5
    np.testing.assert_allclose(records.positions, places.reshape(-1, 3) * units.Bohr)
    np.testing.assert_array_equal(records.columns["forces"], -places.reshape(-1, 3))
    np.testing.assert_allclose(read(path, **{**options, "keys": {"energy": "u"}, "length": "Å"}).cell, cells)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"R": np.zeros((4, 2, 2))}, r"the shape of 'R' is \(4, 2, 2\) instead of \(structures, atoms, 3\)"),
        ({"z": np.array([1, 1, 1])}, r"the shape of 'z' is \(3,\) instead of \(2,\) or \(4, 2\)"),
        ({"z": np.array([1, 119])}, "integers from 1 to 118"),
        ({"z": np.array([1, 1.5])}, "integers from 1 to 118"),
        ({"coords": np.zeros((4, 2, 3))}, "positions may be any of R, coords"),
        ({"E": np.array([1, 2, np.nan, 4])}, "energy must be 1 finite numbers"),
        ({"E": np.zeros((4, 2))}, "energy must be 1 finite numbers"),
        ({"F": np.zeros((4, 2, 2))}, "forces must be 3 finite numbers"),
        ({"E": np.array([{}, 2, 3, 4])}, "'E' contains Python objects"),
        ({"cell": np.eye(2)}, r"'cell' is \(2, 2\)"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, change, message):
    arrays = {"R": np.ones((4, 2, 3)), "z": np.array([1, 8]), "E": np.zeros(4), "F": np.zeros((4, 2, 3))}
    path = tmp_path / "x.npz"
    np.savez(path, **arrays | change)
    with pytest.raises(DataError, match=message) as caught:
        read(path, length="Å")
    assert str(path) in str(caught.value)


def test_an_array_that_is_missing(tmp_path):
    np.savez(tmp_path / "x.npz", R=np.ones((4, 2, 3)))
    with pytest.raises(DataError, match="it has no numbers; its arrays are R"):
        read(tmp_path / "x.npz", length="Å")


def test_a_header_that_promises_too_much(tmp_path):
    """An array of a terabyte in a file of some bytes must not be asked memory for."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (1 << 30, 40, 3)})
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("R.npy", buffer.getvalue())
    with pytest.raises(DataError, match=r"x.npz: 'R' has 0 bytes instead of 1030792151040"):
        read(path, length="Å")


def test_a_bomb(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, R=np.zeros((1, 4_000_000, 3)), z=[1])  # 96 MB in 100 kB
    with pytest.raises(DataError, match="'R' unpacks to more than 100 times its size"):
        read(path, length="Å")


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_named(tmp_path, seed):
    random = np.random.default_rng(seed)
    content = bytearray(SAMPLE.read_bytes())
    if seed % 2:
        content = content[: random.integers(len(content))]
    else:
        content[random.integers(len(content))] ^= 1 << random.integers(8)
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    try:
        records = read(path, length="Å")
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:  # the bit was one of a date or a flag
        np.testing.assert_array_equal(records.positions, read(SAMPLE, length="Å").positions)
