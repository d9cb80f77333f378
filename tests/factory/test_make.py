"""Whole data sets: content, kills and restarts, any number of processes, and failures."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write

from geoeq.cli.main import main
from geoeq.data import load
from geoeq.data.store import open_store
from geoeq.errors import DataError, InputError
from geoeq.factory import MD, Rattle, Settings, Sources, make_set
from geoeq.factory.find_starts import find_starts
from geoeq.factory.methods import METHODS, find_method
from geoeq.factory.pool import process_pool
from geoeq.factory.set_folder import locked, make_plan
from geoeq.factory.starts import Start
from geoeq.factory.task_results import Result
from geoeq.factory.tasks import sample_frames
from geoeq.factory.write_dataset import Summary

SMILES = ("CCO", "O", "C1#CC1", "C[NH3+]", "CF", "CO", "C", "N")

CALCULATOR = """
import os
from ase.calculators.lj import LennardJones

class Crashing(LennardJones):
    def calculate(self, atoms=None, properties=None, system_changes=()):
        print("this line is for nobody")
        if len(atoms) == 3:
            os._exit(7)
        if len(atoms) == 4:
            raise ZeroDivisionError("as it happens")
        super().calculate(atoms, properties, system_changes)
"""


WAITING = """
import time
from pathlib import Path
from ase.calculators.lj import LennardJones

class Waiting(LennardJones):
    def calculate(self, atoms=None, properties=None, system_changes=()):
        while len(atoms) == 4 and Path(__file__).with_name("hold").exists():
            time.sleep(0.01)
        super().calculate(atoms, properties, system_changes)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def argon(path: Path, *sizes: int) -> Path:
    write(path, [Atoms(f"Ar{n}", [(3.8 * i, 0, 0) for i in range(n)]) for n in sizes])
    return path


def test_a_set_from_smiles_is_what_its_card_says(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    folder = tmp_path / "My set"
    settings = Settings("emt", conformers=2, rattle=Rattle(0.02, 2))
    summary = make_set(folder, Sources(smiles=SMILES), settings, processes=1)
    assert {row["name"]: row["reason"] for row in rows(folder / "failures.csv")} == {
        "C1#CC1": "RDKit finds no conformer of it",
        "C[NH3+]": f"{METHODS['emt'].title} does not support charges; this structure has +1 e.",
        "CF": "NotImplementedError: No EMT-potential for F",
    }
    dataset = load(folder)
    assert dataset.card.name == "my-set"
    assert dataset.card.title == f"5 SMILES; {METHODS['emt'].title}", "three of the eight came to nothing"
    assert len(dataset) == summary.structures == 6 * 3  # of ethanol two conformers
    assert sorted(dataset.targets) == ["energy", "forces"]
    assert dataset.targets["energy"].dtype == dataset.targets["forces"].dtype == np.float64
    assert not (folder / ".work").exists()

    batch = dataset.batch(range(len(dataset)), dtype=torch.float64)
    for place in range(len(dataset)):
        data = batch[place]
        atoms = Atoms(data.z.numpy(), data.pos.numpy(), calculator=EMT())
        assert data.energy.item() == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
        assert np.allclose(data.forces.numpy(), atoms.get_forces(), atol=1e-12)
    split = dataset.split()
    assert {part: len(places) for part, places in split.items()} == dict(summary.sizes)
    molecules = {part: set(batch.molecule[places].tolist()) for part, places in split.items()}
    assert sum(map(len, molecules.values())) == len(set.union(*molecules.values())) == 5
    assert dataset.card.made["settings"]["seed"] == 0  # type: ignore[index, call-overload]
    assert [row["part"] for row in rows(folder / "molecules.csv")].count("test") == 1
    assert make_set(folder, Sources(smiles=SMILES), settings) == summary == Summary.read(folder)


def test_ions_and_radicals_carry_charge_and_multiplicity(tmp_path: Path) -> None:
    pytest.importorskip("rdkit")
    pytest.importorskip("tblite")
    make_set(tmp_path / "ions", Sources(smiles=("CC(=O)[O-]", "[CH3]", "C[NH3+]", "O")), Settings("gfn2"), processes=1)
    dataset = load(tmp_path / "ions")
    batch = dataset.batch(range(4), dtype=torch.float64)
    found = {row["name"]: int(row["molecule"]) for row in rows(tmp_path / "ions" / "molecules.csv")}
    for name, charge, multiplicity in (("CC(=O)[O-]", -1, 1), ("[CH3]", 0, 2), ("C[NH3+]", 1, 1), ("O", 0, 1)):
        place = batch.molecule.tolist().index(found[name])
        data = batch[place]
        assert (data.total_charge.item(), data.multiplicity.item()) == (charge, multiplicity)
        assert data.charges.sum().item() == pytest.approx(charge, abs=1e-6)
        assert data.gap.item() == pytest.approx((data.lumo - data.homo).item(), abs=1e-12)
        assert data.gap.item() > 1
    assert {name: target.unit for name, target in dataset.card.targets.items()} == {
        "energy": "eV",
        "forces": "eV/Å",
        "dipole": "e·Å",
        "charges": "e",
        "homo": "eV",
        "lumo": "eV",
        "gap": "eV",
    }


def test_files_say_charges_and_crystals_have_no_dipole(tmp_path: Path) -> None:
    pytest.importorskip("tblite")
    ions = [Atoms("OH", [(0, 0, 0), (0, 0, 0.97)], info={"charge": charge}) for charge in (-1, 0, 0.5)]
    ions.append(Atoms("OH", [(0, 0, 0), (0, 0, 0.97)], info={"charge": -1, "multiplicity": 2}))
    write(tmp_path / "ions.xyz", ions)
    summary = make_set(tmp_path / "ions", Sources(structures=(tmp_path / "ions.xyz",)), Settings("gfn2"), processes=1)
    assert [(failure.number, failure.reason) for failure in summary.failures] == [
        (2, "its charge 0.5 is not a whole number"),
        (3, "with a charge of -1 e it has 10 electrons, of which 1 cannot be unpaired"),
    ]
    batch = load(tmp_path / "ions").batch([0, 1], dtype=torch.float64)
    found = sorted(zip(batch.total_charge.tolist(), batch.multiplicity.tolist()))
    assert found == [(-1, 1), (0, 2)]
    crystal = bulk("Si")
    write(tmp_path / "both.xyz", [*ions[:2], crystal])
    make_set(tmp_path / "both", Sources(structures=(tmp_path / "both.xyz",)), Settings("gfn2"), processes=1)
    dataset = load(tmp_path / "both")
    assert "dipole" not in dataset.targets
    periodic = dataset.batch([0, 1, 2], dtype=torch.float64).pbc.all(dim=1).tolist()
    assert sorted(periodic) == [False, False, True]


@pytest.mark.slow
def test_numbers_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    sources = Sources(structures=(argon(tmp_path / "a.xyz", 2, 3, 4, 5),))
    settings = Settings("lj", md=MD(50.0, 2, 10.0), rattle=Rattle(0.1, 1))
    for processes in (1, 3):
        make_set(tmp_path / str(processes), sources, settings, processes=processes)
    one, three = (open_store(tmp_path / name / "structures", verify=True)[0] for name in ("1", "3"))
    assert one.keys() == three.keys()
    assert len(one["ptr"]) == 1 + 4 * 4
    for name, array in one.items():
        assert np.array_equal(array, three[name]), name


def test_a_calculator_may_crash_and_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crashing_calculator.py").write_text(CALCULATOR)
    monkeypatch.syspath_prepend(tmp_path)
    sources = Sources(structures=(argon(tmp_path / "a.xyz", 2, 3, 4, 5),))
    settings = Settings("crashing_calculator.Crashing", {"sigma": 3.4, "epsilon": 0.01})
    summary = make_set(tmp_path / "set", sources, settings, processes=1)
    assert summary.structures == 2
    assert [(failure.number, failure.reason) for failure in summary.failures] == [
        (1, "its process ended with status 7 (this line is for nobody), 2 times"),
        (2, "ZeroDivisionError: as it happens"),
    ]


@pytest.mark.slow
def test_what_was_done_before_a_kill_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third structure waits as long as there is a file, so that the kill comes after two."""
    (tmp_path / "waiting_calculator.py").write_text(WAITING)
    (tmp_path / "hold").touch()
    monkeypatch.syspath_prepend(tmp_path)
    file = argon(tmp_path / "a.xyz", 2, 3, 4, 5)
    potential = ["--argument", "sigma=3.4", "--argument", "epsilon=0.01"]
    options = ["--structures", str(file), "--method", "waiting_calculator.Waiting", *potential, "--md", "50K:3"]
    command = [sys.executable, "-m", "geoeq", "data", "make", *options, "--processes", "1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen([*command, "-o", str(killed)], env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 240
    while len(list(killed.glob(".work/frames-*.npz"))) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert sorted(path.name for path in killed.glob(".work/frames-*.npz")) == [f"frames-file-0-{n}.npz" for n in (0, 1)]
    assert not (killed / "card.yaml").exists()

    (tmp_path / "hold").unlink()
    assert main(["data", "make", *options, "-o", str(killed)]) == 0
    assert main(["data", "make", *options, "-o", str(whole)]) == 0
    one, other = (open_store(folder / "structures", verify=True)[0] for folder in (killed, whole))
    assert len(one["ptr"]) == 1 + 4 * 4
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in other.items()
    }


def test_results_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    """A set whose last step failed goes on from its results: here, one that says what no calculator would."""
    sources = Sources(structures=(argon(tmp_path / "a.xyz", 2, 3),))
    settings, method, folder = Settings("lj"), find_method("lj"), tmp_path / "set"
    (folder / ".work").mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(make_plan(sources, settings, method), indent=1, ensure_ascii=False))
    with process_pool(settings, folder / ".work", 1) as pool:
        files, _ = find_starts(folder / ".work", sources, pool)
    for index, start in enumerate(Result.read(files[0]).starts):
        result = sample_frames(Start.from_dict(start), settings, method)
        result.frames["energy"][:] = 100.0 + index
        result.write(folder / ".work" / f"frames-file-0-{index}.npz")
    make_set(folder, sources, settings, processes=1)
    assert sorted(load(folder).targets["energy"]) == [100.0, 101.0]


def test_a_folder_of_other_settings_or_other_things_is_refused(tmp_path: Path) -> None:
    sources = Sources(structures=(argon(tmp_path / "a.xyz", 2, 3, 4),))
    folder = tmp_path / "set"
    make_set(folder, sources, Settings("lj"), processes=1)
    with pytest.raises(InputError, match=r"of other settings: seed 0, not 1\. Give another folder, or --again"):
        make_set(folder, sources, Settings("lj", seed=1), processes=1)
    with locked(folder), pytest.raises(InputError, match="Another process is making"):
        make_set(folder, sources, Settings("lj"), processes=1, again=True)
    with pytest.raises(InputError, match=r"a\.xyz is a file"):
        make_set(tmp_path / "a.xyz", sources, Settings("lj"), processes=1)
    with pytest.raises(InputError, match="holds other files"):
        make_set(tmp_path, sources, Settings("lj"), processes=1)
    (folder / "notes.txt").write_text("mine")
    make_set(folder, sources, Settings("lj", seed=1), processes=1, again=True)
    assert (folder / "notes.txt").read_text() == "mine"
    assert load(folder).card.made["seed"] == 1


def test_if_nothing_can_be_labelled_the_first_reason_is_reported(tmp_path: Path) -> None:
    sources = Sources(structures=(argon(tmp_path / "a.xyz", 2, 3),))
    with pytest.raises(DataError, match=r"could be labelled. The first of 2 reasons: a.xyz.*No EMT-potential"):
        make_set(tmp_path / "set", sources, Settings("emt"), processes=1)
    assert len(rows(tmp_path / "set" / "failures.csv")) == 2


def test_an_altered_array_is_noticed(tmp_path: Path) -> None:
    sources = Sources(structures=(argon(tmp_path / "a.xyz", 2, 3, 4),))
    make_set(tmp_path / "set", sources, Settings("lj"), processes=1)
    path = tmp_path / "set" / "structures" / "target.energy.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"target\.energy\.npy was altered"):
        load(tmp_path / "set")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"smiles": ("C",), "surfaces": ("Cu:fcc111:1x1x3",), "adsorbates": ("H",)},
        {"surfaces": ("Cu:fcc111:1x1x3",)},
    ],
)
def test_sources_are_of_one_kind(given: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(InputError, match=r"together|Give either"):
        Sources(**given)  # type: ignore[arg-type]


def test_surfaces_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "surfaces"
    options = ["--surface", "Cu:fcc111:1x1x3", "--adsorbates", "H,N,O", "--method", "emt", "--processes", "1"]
    assert main(["data", "make", *options, "-o", str(folder)]) == 0
    assert "by molecule: whole molecules or systems (3)" in capsys.readouterr().out
    dataset = load(folder)
    assert dataset.card.title.startswith("1 surfaces, 3 adsorbates; ")
    assert {"energy", "forces", "adsorption_energy", "relaxed_energy", "relaxed_positions"} == set(dataset.targets)
    batch = dataset.batch(dataset.split()["test"], dtype=torch.float64)
    assert set(batch.tags.tolist()) == {0, 1, 2}
    free = dataset.free_atoms(dataset.split()["test"])
    assert free is not None
    assert np.array_equal(batch.fixed.numpy(), ~free)
    assert batch.fid[0] == 0
    assert len(set(batch.sid.tolist())) == 4  # the sites of one system
    assert main(["data", "info", str(folder)]) == 0
