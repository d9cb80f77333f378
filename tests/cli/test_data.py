"""The reports of geoeq data list | fetch | prepare | info."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest

from geoeq.cli.data_reports import fetch_lines, info_lines, list_lines, prepare_lines
from geoeq.data import names
from geoeq.errors import DataError


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_list():
    lines = list_lines()
    assert [line.split()[0] for line in lines] == names()
    states = {line.split()[0]: line.rsplit("[", 1)[1] for line in lines}
    assert states["qm7"] == "shipped with geoeq]"
    assert states["qm9"] == "not fetched; sample: yes]"
    prepare_lines("qm7")
    (line,) = [line for line in list_lines() if line.split()[0] == "qm7"]
    assert line.endswith("[prepared]")


def test_prepare(root):
    lines = prepare_lines("qm9", sample=True)
    assert lines[0].startswith(f"cache: {root}/qm9/sample-")
    text = "\n".join(lines)
    assert "structures: 100" in text
    assert "target dipole_norm (D): mean 1.953" in text
    assert "target atomization_energy_0k (meV): mean -40002.2" in text


def test_fetch():
    assert "needs no files" in fetch_lines("nbody")[0]
    (line,) = fetch_lines("qm7")
    assert line.startswith("qm7.npz  ")


def test_info_of_a_data_set(root):
    text = "\n".join(info_lines("qm9"))
    for expected in (
        "CC0",
        "split egnn (default): train 100000, valid 17748, test 13083",
        "not verified this address",
        "meV",
    ):
        assert expected in text
    assert "structures: 100" in "\n".join(info_lines("qm9", sample=True))
    assert "not fetched" in text


def test_info_compares_checksums(root):
    prepare_lines("qm7")
    (path,) = root.glob("qm7/full-*/positions.npy")
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    import os

    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"positions.npy was altered"):
        info_lines("qm7")


def test_info_of_a_file(tmp_path):
    ase.io.write(tmp_path / "x.xyz", [ase.Atoms("OH2", np.eye(3)), ase.Atoms("H", [[0, 0, 0]])])
    text = "\n".join(info_lines(str(tmp_path / "x.xyz")))
    assert "structures: 2, with 1 to 3 atoms (mean 2.0), 4 atoms in total" in text
    assert "elements: H 3, O 1" in text


def test_info_states_the_periodicity(tmp_path):
    molecule, crystal = ase.Atoms("OH2", np.eye(3)), ase.Atoms("H", cell=[3, 3, 3], pbc=True)
    ase.io.write(tmp_path / "x.xyz", molecule)
    assert "periodicity: none; no structure has a cell that repeats" in info_lines(str(tmp_path / "x.xyz"))
    ase.io.write(tmp_path / "y.xyz", [crystal, ase.Atoms("H", cell=[3, 3, 9], pbc=[1, 1, 0]), molecule])
    expected = "periodicity: directions a b c in 1 and a b in 1 and none in 1 of 3 structures"
    assert expected in info_lines(str(tmp_path / "y.xyz"))
