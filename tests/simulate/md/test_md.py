"""The command ``geoeq md``: its files, what it refuses, and SIGKILL."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

from geoeq.cli.main import main
from geoeq.files import load_state, read_log
from geoeq.models import EGNN, Dipole, Forces, GraphScalar, NodeVector
from geoeq.models.checkpoint import save_checkpoint
from geoeq.simulate.md.thermo import SPEED

SHORT = ["--timestep", "1fs", "--log-every", "2", "--frame-every", "2", "--save-every", "15", "--device", "cpu"]
ENSEMBLES = {
    "nve": ["--ensemble", "nve", "--temperature", "60K"],
    "langevin": ["--ensemble", "nvt", "--temperature", "60K", "--tau", "20fs"],
    "npt": ["--ensemble", "npt", "--temperature", "60K", "--pressure", "2kbar"],
}


def network(*heads, **options):
    torch.manual_seed(0)
    options = {"width": 8, "layers": 1, "cutoff": 5.0, **options}
    return EGNN(list(heads) or [GraphScalar("energy")], **options).double()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint and a crystal, in which one is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    save_checkpoint(Forces(network(), stress=True), "model")
    atoms = bulk("Ar", a=5.3, cubic=True)
    atoms.rattle(0.05, seed=1)
    write("ar.xyz", atoms)
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures, which take longer than the simulations here."""
    from geoeq.simulate.md import md_plot as picture

    monkeypatch.setattr(picture, "draw_summary", lambda *arguments: None)


def md(*words, name="nve", structure="ar.xyz", model="model"):
    return main(["md", model, structure, *ENSEMBLES[name], *SHORT, *words])


def files(folder):
    """The log without its column of speed, and the frames."""
    with (Path(folder) / "thermo.csv").open(newline="") as file:
        rows = [row[:-1] for row in csv.reader(file)]
    return rows, *((Path(folder) / name).read_bytes() for name in ("trajectory.extxyz", "last.extxyz"))


def test_what_a_run_leaves(folder, capsys):
    assert md("--time", "0.02ps", name="npt") == 0
    out = capsys.readouterr().out
    assert "EGNN, Ar4, npt, 60 K, nose-hoover, 0.2 GPa: 4 atoms, periodic along a, b, c, 20 steps of 1 fs" in out
    assert "random at 60 K" in out
    assert "temperature" in out
    run = folder / "runs" / "md-ar-npt"
    written = {"last.extxyz", "results.json", "settings.json", "state.pt", "summary.png", "thermo.csv"}
    assert {path.name for path in run.iterdir()} == written | {"trajectory.extxyz"}
    settings = json.loads((run / "settings.json").read_text())
    assert settings["settings"]["pressure [eV/Å^3]"] == pytest.approx(0.2 / 160.21766208)
    assert settings["model"]["conservative"] is True
    assert settings["model"]["sha256"] == json.loads((folder / "model" / "model.json").read_text())["sha256"]
    assert settings["environment"]["ase"]
    results = json.loads((run / "results.json").read_text())
    assert (results["step"], results["time [ps]"], results["stopped"]) == (20, 0.02, None)
    rows = read_log(run / "thermo.csv")
    assert [row["step"] for row in rows] == list(range(0, 21, 2))
    assert all(SPEED in row for row in rows[1:])
    half = [row["temperature [K]"] for row in rows[5:]]
    assert results["means"]["temperature [K]"][0] == pytest.approx(sum(half) / 6)
    assert (run / "summary.png").read_bytes().startswith(b"\x89PNG")
    assert len(read(run / "trajectory.extxyz", ":")) == 11

    before = files(run)
    assert md("--steps", "20", name="npt") == 0
    assert "This run is finished" in capsys.readouterr().out
    assert files(run) == before


@pytest.mark.usefixtures("quick")
def test_a_changed_setting_is_refused(folder, capsys):
    assert md("--steps", "4") == 0
    write("ar.xyz", bulk("Ar", a=5.2, cubic=True))
    assert md("--steps", "4", "--seed", "1") == 2
    err = capsys.readouterr().err
    assert "settings: seed is 0 there and 1 here" in err
    assert "structure: sha256 is" in err
    assert "--again" in err
    assert md("--steps", "4", "--seed", "1", "--again") == 0
    assert md("--steps", "6", "--seed", "1", "--save-every", "3") == 0  # what changes nothing that is written
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    assert md("--steps", "4", "--again", "--output", "other") == 2
    assert "holds other files" in capsys.readouterr().err
    assert Path("other/notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("quick")
def test_what_never_began_is_no_obstacle(folder, capsys):
    assert main(["md", "model", "ar.xyz", "--ensemble", "nve", "--steps", "4", *SHORT]) == 2
    assert "specify a temperature" in capsys.readouterr().err
    assert md("--steps", "4") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "4", "--temperature", "9"], "--temperature 9: '9' has no unit. Write it as in --temperature 300K"),
        (["--steps", "4", "--temperature", "27fs"], "--temperature 27fs: 'fs' cannot be converted to 'K'"),
        (["--steps", "4", "--timestep", "fast"], "--timestep fast: 'fast' is not a number with a unit."),
        (["--steps", "4", "--timestep", "0fs"], "timestep is 0.0 fs; it must be above 0"),
        (["--steps", "4", "--tau", "1psec"], "--tau 1psec: In the unit 'psec': No unit is called 'psec'."),
        (["--time", "10"], "--time 10: '10' has no unit. Write it as in --time 10ps."),
        (["--time", "0ps"], "--time 0ps, --timestep 1fs: both must be above 0."),
        (["--steps", "0"], "steps is 0; it must be 1 or more."),
        (["--steps", "4", "--pressure", "1bar"], "nve keeps the cell constant: omit the pressure, or choose npt."),
        (["--steps", "4", "--thermostat", "bussi"], "nve has no thermostat: omit bussi, or choose nvt."),
        (["--steps", "4", "--frame", "1"], "--frame 1: ar.xyz has 1 structures"),
        (["--steps", "4", "--skin=-1Å"], "The skin is -1.0"),
    ],
)  # fmt: skip
def test_a_mistake_is_said(words, message, folder, capsys):
    assert md(*words) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not Path("runs").exists()


@pytest.mark.usefixtures("quick")
def test_a_file_of_several_structures_needs_a_word(folder, capsys):
    frames = [bulk("Ar", a=5.3), bulk("Ar", a=5.4, cubic=True)]
    write("several.xyz", frames)
    assert md("--steps", "2", structure="several.xyz") == 2
    assert "several.xyz has 2 structures: select one with --frame" in capsys.readouterr().err
    assert md("--steps", "2", "--frame", "-1", structure="several.xyz") == 0
    assert len(read("runs/md-several-nve/last.extxyz")) == 4


@pytest.mark.usefixtures("quick")
def test_what_a_model_cannot_do(folder, capsys):
    save_checkpoint(network(Dipole()), "dipole")
    save_checkpoint(network(GraphScalar("energy"), NodeVector("forces")), "direct")
    save_checkpoint(network(cutoff=None), "complete")
    assert md("--steps", "2", model="dipole") == 2
    assert "a simulation needs an energy and forces" in capsys.readouterr().err
    assert md("--steps", "2", model="direct", name="npt") == 2
    assert "npt needs a stress" in capsys.readouterr().err
    assert md("--steps", "2", model="direct") == 0
    assert "not derivatives of the energy" in capsys.readouterr().out
    assert json.loads(Path("runs/md-ar-nve/settings.json").read_text())["model"]["conservative"] is False
    write("water.xyz", molecule("H2O"))
    assert md("--steps", "2", model="complete", structure="water.xyz") == 0
    out = capsys.readouterr().out
    assert "3 atoms, not periodic" in out
    assert "pressure" not in out


def test_one_atom(folder):
    write("one.xyz", Atoms("Ar"))
    assert md("--steps", "4", structure="one.xyz", name="langevin") == 0
    assert Path("runs/md-one-nvt/summary.png").is_file()


@pytest.mark.usefixtures("quick")
def test_an_explosion_is_status_2(folder, capsys):
    assert md("--steps", "20", "--max-temperature", "1K") == 2
    assert "Step 0: The temperature is" in capsys.readouterr().err
    assert md("--steps", "20", "--max-temperature", "1K") == 2
    assert "max_temperature" in json.loads(Path("runs/md-ar-nve/results.json").read_text())["stopped"]
    assert read("runs/md-ar-nve/last.extxyz").info["step"] == 0


@pytest.mark.usefixtures("quick")
def test_the_velocities_of_the_file(folder, capsys):
    assert md("--steps", "4") == 0
    assert main(["md", "model", "runs/md-ar-nve/last.extxyz", "--ensemble", "nve", "--steps", "2", *SHORT]) == 0
    assert "Velocities: from the structure" in capsys.readouterr().out
    first = read_log(Path("runs/md-last-nve/thermo.csv"))[0]
    last = read_log(Path("runs/md-ar-nve/thermo.csv"))[-1]
    assert first["total energy [eV/atom]"] == pytest.approx(last["total energy [eV/atom]"], abs=1e-7)


FORK = """
import os, sys
from geoeq.cli.main import main
commands = [line.split("\\t") for line in sys.argv[1:]]
children = []
for command in commands:
    child = os.fork()
    if not child:
        os._exit(main(command))
    children.append(child)
print(*children, flush=True)
for child in children:
    os.waitpid(child, 0)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_sigkill(folder, capsys):
    """Processes are killed somewhere in the middle; the same commands end where one that was let alone does."""
    commands = {name: ["md", "model", "ar.xyz", *words, *SHORT, "--steps", "100"] for name, words in ENSEMBLES.items()}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORK]
        + ["\t".join([*command, "-o", f"killed/{name}"]) for name, command in commands.items()],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        children = dict(zip(commands, map(int, process.stdout.readline().split())))
        end = time.monotonic() + 120
        while children and time.monotonic() < end:
            for name, child in list(children.items()):
                log = folder / "killed" / name / "thermo.csv"
                if log.is_file() and log.read_text().count("\n") > 10:
                    os.kill(child, signal.SIGKILL)
                    del children[name]
            time.sleep(0.01)
        assert not children
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
    torch.set_num_threads(1)
    for name, command in commands.items():
        assert 15 <= load_state(folder / "killed" / name / "state.pt")["step"] < 100
        assert not (folder / "killed" / name / "summary.png").exists()
        assert main([*command, "-o", f"killed/{name}"]) == 0
        assert "Resuming after step" in capsys.readouterr().out
        assert main([*command, "-o", f"whole/{name}"]) == 0
        assert files(f"killed/{name}") == files(f"whole/{name}")
        assert len(read(f"killed/{name}/trajectory.extxyz", ":")) == 51


@pytest.mark.usefixtures("quick")
def test_ctrl_c_is_status_130(folder, monkeypatch, capsys):
    from geoeq.simulate.md.md_progress import MDProgress

    shown = MDProgress.__call__

    def interrupted(self, step, row):
        shown(self, step, row)
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(MDProgress, "__call__", interrupted)
    assert md("--steps", "6") == 130
    assert "Ended at step 3." in capsys.readouterr().err
    monkeypatch.setattr(MDProgress, "__call__", shown)
    assert md("--steps", "6") == 0
    assert "Resuming after step 3" in capsys.readouterr().out
