"""HDF5 in the layouts of SPICE, ANI and QM7-X: signs, units, gaps, and what leads out of the file."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units

from geoeq.data import Records, join, load
from geoeq.data.formats.hdf5 import HDF5Reader
from geoeq.errors import DataError

h5py = pytest.importorskip("h5py")

SIZES = {"water": (3, [8, 1, 1]), "methane": (5, [6, 1, 1, 1, 1])}


def write(path: Path, layout: str) -> dict[str, list[np.ndarray]]:
    """Two molecules of four structures each, in the order of their names; what was written."""
    random = np.random.default_rng(0)
    written: dict[str, list[np.ndarray]] = {"positions": [], "energy": [], "forces": []}
    with h5py.File(path, "w") as file:
        for molecule in sorted(SIZES):
            atoms, numbers = SIZES[molecule]
            places, energy = random.normal(size=(4, atoms, 3)), random.normal(size=4)
            forces = random.normal(size=(4, atoms, 3))
            for name, value in (("positions", places), ("energy", energy), ("forces", forces)):
                written[name].append(value)
            if layout == "qm7-x":
                for number in range(4):
                    group = file.create_group(f"{molecule}/Geom-m1-i1-c1-{number}")
                    group["atNUM"], group["atXYZ"], group["totFOR"] = numbers, places[number], forces[number]
                    group["ePBE0+MBD"], group["vDIP"] = energy[number : number + 1], [0.0, 0.0, 0.5]
                    group["hCHG"], group["sRMSD"] = np.zeros((atoms, 1)), [0.1]
                continue
            group = file.create_group(f"gdb/{molecule}" if layout == "ani" else molecule)
            if layout == "spice":
                group["atomic_numbers"], group["conformations"] = numbers, places
                group["dft_total_energy"], group["dft_total_gradient"] = energy, -forces
                group["smiles"], group["subset"] = ["O"], ["SPICE Dipeptides"]
                group["mbis_charges"], group["formation_energy"] = np.zeros((4, atoms, 1)), energy + 1
            elif layout == "ani-1x":
                group["atomic_numbers"], group["coordinates"] = np.uint8(numbers), np.float32(places)
                group["wb97x_dz.energy"], group["wb97x_dz.forces"] = energy, np.float32(forces)
                group["hf_dz.energy"] = [1.0, np.nan, 3.0, 4.0]
                group["ccsd(t)_cbs.energy"] = [np.nan] * 4 if molecule == "water" else [1.0, np.nan, np.nan, 2.0]
            else:
                group["species"], group["coordinates"] = np.bytes_(["HHHHHHCNO"[z] for z in numbers]), places
                group["energies"] = energy
    return written


def read(path: Path, **options: object) -> Records:
    return join(HDF5Reader(**options).read({path.name: path}), str(path))


@pytest.mark.parametrize(
    ("layout", "length", "energy", "forces"),
    [
        ("spice", units.Bohr, units.Hartree, units.Hartree / units.Bohr),
        ("ani-1x", 1.0, units.Hartree, units.Hartree),
        ("ani", 1.0, units.Hartree, None),
        ("qm7-x", 1.0, 1.0, 1.0),
    ],
)
def test_layouts_are_detected_and_read_in_their_units(tmp_path, layout, length, energy, forces):
    written = write(tmp_path / "x.h5", layout)
    dataset = load(tmp_path / "x.h5")
    assert np.diff(dataset.ptr).tolist() == [5] * 4 + [3] * 4
    assert dataset.numbers[-3:].tolist() == [8, 1, 1]
    assert dataset.targets["energy"].dtype == np.float64
    expected = {name: np.concatenate([a.reshape(-1, *a.shape[2:]) for a in values]) for name, values in written.items()}
    exact = 1e-6 if layout == "ani-1x" else 1e-14
    np.testing.assert_allclose(dataset.positions, expected["positions"] * length, rtol=exact)
    np.testing.assert_allclose(dataset.targets["energy"], np.concatenate(written["energy"]) * energy, rtol=1e-14)
    if forces is not None:
        np.testing.assert_allclose(dataset.targets["forces"], expected["forces"] * forces, rtol=exact)
    assert f"The file has the layout of {layout}" in dataset.notes[0]


@pytest.mark.parametrize("labels", [True, False])
def test_groups_like_those_of_ani(tmp_path, labels):
    """Atomic numbers instead of symbols; the name of the energies tells them from ANI-1x."""
    random = np.random.default_rng(0)
    positions, energies = random.normal(size=(4, 9, 3)), random.normal(size=4)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("ethanol")
        group["coordinates"], group["atomic_numbers"] = positions, [6, 6, 8, *[1] * 6]
        if labels:
            group["energies"] = energies
    records = read(tmp_path / "x.h5")
    np.testing.assert_array_equal(records.positions, positions.reshape(-1, 3))
    assert records.numbers.tolist() == [6, 6, 8, *[1] * 6] * 4
    assert list(records.columns) == (["energy"] if labels else [])
    if labels:
        np.testing.assert_array_equal(records.columns["energy"], energies)
        with pytest.raises(DataError, match="does not state the unit of 'energies'"):
            load(tmp_path / "x.h5")
    else:
        assert len(load(tmp_path / "x.h5")) == 4


def test_an_array_that_the_file_cannot_contain(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("a")
        group.create_dataset("coordinates", (1_000_000_000, 3, 3), "f8", chunks=(1000, 3, 3))
        group["species"], group["energies"] = [b"O", b"H", b"H"], np.zeros(4)
    assert (tmp_path / "x.h5").stat().st_size < 10_000
    with pytest.raises(DataError, match=r"x.h5/a/coordinates: its shape .* is far more than the file can contain"):
        read(tmp_path / "x.h5")


def test_what_was_not_computed_is_left_out(tmp_path):
    write(tmp_path / "x.h5", "ani-1x")
    records = read(tmp_path / "x.h5", keys={"energy": "ccsd(t)_cbs.energy", "forces": None})
    assert records.columns["energy"].tolist() == [1.0, 2.0]
    assert np.diff(records.ptr).tolist() == [5, 5]
    whole = read(tmp_path / "x.h5")
    np.testing.assert_array_equal(records.positions, np.concatenate([whole.positions[:5], whole.positions[15:20]]))
    with pytest.raises(DataError, match=r"energy: No key is called 'ccsd_energy'"):
        read(tmp_path / "x.h5", keys={"energy": "ccsd_energy"})


def test_another_energy_of_spice(tmp_path):
    write(tmp_path / "x.h5", "spice")
    usual, other = read(tmp_path / "x.h5"), read(tmp_path / "x.h5", keys={"energy": "formation_energy"})
    np.testing.assert_allclose(other.columns["energy"], usual.columns["energy"] + 1)
    np.testing.assert_array_equal(other.columns["forces"], usual.columns["forces"])


def test_a_file_with_other_names(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/Z"], file["a/xyz"], file["a/energy"] = [1, 1], np.ones((3, 2, 3)) * [[[0.0], [1.0]]], [1.0, 2.0, 3.0]
    with pytest.raises(DataError, match="no group has the arrays of a molecule"):
        read(tmp_path / "x.h5")
    structure = {"positions": "xyz", "numbers": "Z"}
    with pytest.raises(DataError, match="the unit of the positions is unknown"):
        read(tmp_path / "x.h5", structure=structure)
    records = read(tmp_path / "x.h5", structure=structure, length="nm")
    assert records.positions[1].tolist() == [10, 10, 10]
    assert records.columns["energy"].tolist() == [1, 2, 3]


def test_a_compressed_file(tmp_path):
    write(tmp_path / "x.h5", "qm7-x")
    (tmp_path / "1000.hdf5.xz").write_bytes(lzma.compress((tmp_path / "x.h5").read_bytes()))
    np.testing.assert_array_equal(read(tmp_path / "1000.hdf5.xz").positions, read(tmp_path / "x.h5").positions)


def soft(file: Any) -> None:
    file["link"] = h5py.SoftLink("/water")


def external(file: Any) -> None:
    file["link"] = h5py.ExternalLink("/etc/passwd", "/")


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4,))
    file["water"].create_virtual_dataset("outside", layout)


def circle(file: Any) -> None:
    file["loop/a"] = [1.0]
    file["loop/again"] = file["loop"]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (soft, "x.h5/link: it is a link; links are not followed"),
        (external, "x.h5/link: it is a link; links are not followed"),
        (virtual, "x.h5/water/outside: its numbers are in another file"),
        (circle, "groups are nested more than 8 deep"),
    ],
)
def test_what_leads_elsewhere_is_refused(tmp_path, harm, message):
    path = tmp_path / "x.h5"
    write(path, "spice")
    with h5py.File(path, "a") as file:
        harm(file)
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_named(tmp_path, seed):
    path = tmp_path / "x.h5"
    write(path, ["spice", "ani-1x", "qm7-x"][seed % 3])
    random = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    used = np.flatnonzero(np.frombuffer(bytes(content), np.uint8))
    if seed % 2:
        content = content[: random.integers(len(content))]
    else:
        for place in random.choice(used, size=3):
            content[place] ^= 1 << random.integers(8)
    path.write_bytes(content)
    try:
        read(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
