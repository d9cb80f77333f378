"""geoeq data doctor: table, JSON, histograms, exit status, and files with wrong or missing labels."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from geoeq.cli.main import main
from geoeq.data import load


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ethanol(count: int = 30) -> list[Atoms]:
    """Frames as somebody's file has them, with labels of the names REF_energy and my_forces."""
    dataset = load("rmd17", sample=True)
    frames = []
    for place in range(count):
        data = dataset[place]
        atoms = Atoms(numbers=data.z.numpy(), positions=data.pos.double().numpy())
        atoms.info["REF_energy"] = float(dataset.targets["energy"][place])
        atoms.arrays["my_forces"] = dataset.targets["forces"][dataset.ptr[place] : dataset.ptr[place + 1]]
        frames.append(atoms)
    return frames


def test_healthy_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "doctor", "rmd17", "--sample", "--full"]) == 0
    out = capsys.readouterr().out
    assert "100 structures, 100 of them measured" in out
    assert "they are consistent" in out
    assert "No problems found." in out
    written = json.loads(Path("runs/doctor-rmd17/doctor.json").read_text())
    assert written["healthy"] is True
    assert written["examined"] == 100
    picture = Path("runs/doctor-rmd17/doctor.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 20_000


def test_warnings_count_only_if_strict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "doctor", "qm7", "-o", "found"]) == 0
    assert main(["data", "doctor", "qm7", "--strict", "-o", "found"]) == 1
    assert "duplicates" in capsys.readouterr().out
    assert Path("found/doctor.png").exists()


def test_a_label_that_is_passed_over_and_then_told(capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write("frames.xyz", ethanol())
    assert main(["data", "doctor", "frames.xyz"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "look like labels and are not read: my_forces." in out
    assert "There are energies and no forces." in out
    assert main(["data", "doctor", "frames.xyz", "--targets", "energy,forces"]) == 1
    assert "There is no 'forces' in the data" in " ".join(capsys.readouterr().out.split())
    assert main(["data", "doctor", "frames.xyz", "--key", "forces=my_forces", "--targets", "energy,forces"]) == 0
    assert "not read" not in capsys.readouterr().out


def test_a_wrong_key(capsys: pytest.CaptureFixture[str]) -> None:
    ase.io.write("frames.xyz", ethanol(3))
    assert main(["data", "doctor", "frames.xyz", "--key", "forces=my_force"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "No key is called 'my_force'. Did you mean 'my_forces'?" in out
    assert main(["data", "doctor", "frames.xyz", "--key", "forces"]) == 2
    assert main(["data", "doctor", "frames.xyz", "--key", "force=my_forces"]) == 2
    assert "Did you mean 'forces'?" in capsys.readouterr().err
    assert main(["data", "doctor", "qm7", "--key", "forces=F"]) == 2


def test_forces_that_some_structures_lack(capsys: pytest.CaptureFixture[str]) -> None:
    frames = ethanol(12)
    for atoms in frames:
        atoms.arrays["forces"] = atoms.arrays.pop("my_forces")
    del frames[4].arrays["forces"]
    ase.io.write("frames.extxyz", frames)
    assert main(["data", "doctor", "frames.extxyz"]) == 1
    assert "forces is not read: only 11 of 12 structures" in " ".join(capsys.readouterr().out.split())


def test_a_file_that_cannot_be_read_is_an_error_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    frames = ethanol(5)
    frames[3].info["REF_energy"] = np.nan
    ase.io.write("frames.xyz", frames)
    assert main(["data", "doctor", "frames.xyz"]) == 1
    assert "not all of them are finite" in " ".join(capsys.readouterr().out.split())
    assert json.loads(Path("runs/doctor-frames.xyz/doctor.json").read_text())["healthy"] is False


def test_what_loading_refuses_is_told_with_all_else(capsys: pytest.CaptureFixture[str]) -> None:
    frames = ethanol()
    frames[2].positions[1] = frames[2].positions[0]
    frames[9].positions[0] += 50.0
    ase.io.write("frames.xyz", frames)
    assert main(["data", "doctor", "frames.xyz", "--key", "forces=my_forces"]) == 1
    found = json.loads(Path("runs/doctor-frames.xyz/doctor.json").read_text())["findings"]
    places = {(one["check"], one["severity"]): one["structures"] for one in found}
    assert places["overlap", "error"] == [2]
    assert places["isolated atoms", "warning"] == [9]


def test_nothing_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "doctor", "qm77"]) == 2
    assert "Did you mean 'qm7'?" in capsys.readouterr().err
    assert main(["data", "doctor", "qm7", "--cutoff", "-1"]) == 2
    assert main(["data", "doctor", "qm7", "--split", "nothing"]) == 2
