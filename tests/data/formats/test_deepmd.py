"""Folders of DeePMD-kit: one system or many, with and without box, mixed types, virials, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoeq.data import Records, join, load
from geoeq.data.formats.deepmd import DeepMDReader
from geoeq.errors import DataError


def write(
    folder: Path, frames: int = 3, types: tuple[int, ...] = (0, 1, 1), box: float | None = 9.0, sets: int = 1
) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    (folder / "type.raw").write_text("\n".join(map(str, types)))
    (folder / "type_map.raw").write_text("O\nH\n")
    for number in range(sets):
        place = folder / f"set.{number:03d}"
        place.mkdir()
        np.save(place / "coord.npy", random.normal(size=(frames, len(types) * 3)).astype(np.float32))
        np.save(place / "energy.npy", random.normal(size=frames))
        np.save(place / "force.npy", random.normal(size=(frames, len(types) * 3)))
        if box is not None:
            np.save(place / "box.npy", np.tile(np.eye(3).ravel() * box, (frames, 1)))
            np.save(place / "virial.npy", np.tile(np.diag([1.0, 2.0, 3.0]).ravel(), (frames, 1)))
    if box is None:
        (folder / "nopbc").touch()
    return folder


def read(path: Path, **options: object) -> Records:
    return join(DeepMDReader(**options).read({path.name: path}), str(path))


def test_a_system(tmp_path):
    path = write(tmp_path / "water", sets=2)
    dataset = load(path)
    assert len(dataset) == 6
    assert dataset.numbers.tolist() == [8, 1, 1] * 6
    coord = np.concatenate([np.load(path / f"set.00{i}" / "coord.npy") for i in range(2)])
    force = np.concatenate([np.load(path / f"set.00{i}" / "force.npy") for i in range(2)])
    np.testing.assert_array_equal(dataset.positions, coord.reshape(-1, 3))
    np.testing.assert_array_equal(dataset.targets["forces"], force.reshape(-1, 3))
    np.testing.assert_allclose(dataset.targets["stress"][5], np.diag([-1, -2, -3]) / 9**3)
    assert dataset[0].pbc.all()
    assert "virial is read from the key 'virial' (detected)." in dataset.notes


def test_many_systems_of_which_one_has_no_box(tmp_path):
    write(tmp_path / "all" / "b" / "dimer", types=(1, 1), box=None)
    write(tmp_path / "all" / "a", frames=2)
    records = read(tmp_path / "all")
    assert np.diff(records.ptr).tolist() == [3, 3, 2, 2, 2]
    assert records.pbc.all(axis=1).tolist() == [True, True, False, False, False]
    assert {*records.columns} == {"energy", "forces"}, "not all have a virial"
    assert records.numbers.tolist() == [8, 1, 1] * 2 + [1, 1] * 3


def test_mixed_types_with_padding(tmp_path):
    path = write(tmp_path / "mixed", types=(0, 0, 0))
    np.save(path / "set.000" / "real_atom_types.npy", [[1, 0, -1], [0, 1, 1], [-1, -1, 1]])
    records = read(path)
    assert np.diff(records.ptr).tolist() == [2, 3, 1]
    assert records.numbers.tolist() == [1, 8, 8, 1, 1, 1]
    force = np.load(path / "set.000" / "force.npy").reshape(3, 3, 3)
    np.testing.assert_array_equal(records.columns["forces"], [*force[0, :2], *force[1], force[2, 2]])


def test_types_without_names(tmp_path):
    path = write(tmp_path / "x")
    (path / "type_map.raw").unlink()
    with pytest.raises(DataError, match=r"type_map.raw: it is missing, .* Specify them by the option 'type_map'"):
        read(path)
    assert read(path, type_map=["Na", "Cl"]).numbers[:3].tolist() == [11, 17, 17]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("set.000/coord.npy", np.zeros((3, 8)), r"coord.npy: its shape is \(3, 8\) instead of \(frames, 9\)"),
        ("set.000/coord.npy", None, "coord.npy: it is missing"),
        ("set.000/box.npy", None, "box.npy: it is missing. A system without cells needs a file 'nopbc'"),
        ("set.000/box.npy", np.zeros((3, 6)), r"box.npy: its shape is \(3, 6\)"),
        ("set.000/energy.npy", np.zeros(4), r"energy.npy: its shape is \(4,\), but there are 3 frames"),
        ("set.000/energy.npy", np.array(["a", "b", "c"]), "energy.npy: it does not contain numbers"),
        ("set.000/energy.npy", np.array([{}, {}, {}]), "energy.npy: it is truncated or altered"),
        ("set.000/energy.npy", b"\x93NUMPY\x01\x00", "energy.npy: it is truncated or altered"),
        ("set.000/force.npy", np.full((3, 9), np.inf), "forces must be 3 finite numbers"),
        ("type.raw", b"0 1 2", "it contains the type 2, but there are only 2 elements"),
        ("type.raw", b"0 1 x", "type.raw: it must contain the types of the atoms"),
        ("type.raw", b"", "type.raw: it is empty"),
        ("type_map.raw", b"O Hx", "atomic numbers must be integers from 1 to 118, or symbols"),
    ],
)
def test_what_does_not_fit(tmp_path, name, value, message):
    path = write(tmp_path / "x")
    if value is None:
        (path / name).unlink()
    elif isinstance(value, bytes):
        (path / name).write_bytes(value)
    else:
        np.save(path / name, value)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_file_is_named(tmp_path, seed):
    random = np.random.default_rng(seed)
    path = write(tmp_path / "x")
    file = sorted(path.rglob("*.*y"))[seed % 5]
    content = bytearray(file.read_bytes())
    if seed % 2:
        content = content[: random.integers(len(content))]
    else:
        content[random.integers(100)] ^= 1 << random.integers(8)
    file.write_bytes(content)
    try:
        read(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
