"""From two runs to an uncertainty that is measured, stops a simulation and chooses frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write

from geoeq.cli.main import main
from geoeq.data import load
from geoeq.errors import CheckpointError, DataError, InputError
from geoeq.models import Forces, LastLayer
from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.simulate import GeoeqCalculator
from geoeq.uncertainty import calibrate, sample, uncertain_folder
from geoeq.uncertainty.residuals import predicted_errors


def ratio(model, name):
    """The mean square of error over estimate on the validation set, 1 where the scale is right."""
    dataset = load("argon.xyz")
    made = predicted_errors(model, dataset, dataset.split(None)["valid"], name)
    return float(np.mean((made.errors / made.deviations) ** 2))


def test_a_run_gets_the_uncertainty_of_its_last_layer(folder, console):
    measured = calibrate([Path("run0")], console)
    model, meta = load_checkpoint("run0/uncertainty")
    assert isinstance(model, Forces)
    assert isinstance(model.model, LastLayer)
    assert ratio(model, "energy") == pytest.approx(1.0)
    written = json.loads(Path("run0/uncertainty/calibration.json").read_text())
    assert written["calibration"]["energy"]["test"]["nll"] == measured["energy"]["test"].nll
    assert meta["uncertainty"]["kind"] == written["kind"] == "last layer"
    assert Path("run0/uncertainty/calibration.png").stat().st_size > 10_000
    said = console.file.getvalue()
    assert "LastLayer(EGNN): energy [eV]" in said
    assert "Spearman" in said
    assert "(test). Median factor of the estimates:" in " ".join(said.split())
    assert "…" not in said


def test_several_runs_become_an_ensemble(folder, console):
    calibrate([Path("run0"), Path("run1")], console, output=Path("both"))
    model, meta = load_checkpoint("both")
    for name in ("energy", "forces"):
        assert ratio(model, name) == pytest.approx(1.0)
        assert model.factors[name] == meta["uncertainty"]["factors"][name]
    assert uncertain_folder(Path("both")) == Path("both")
    assert len(meta["uncertainty"]["sources"]) == 2


def test_components_of_forces_are_the_errors(folder, console):
    calibrate([Path("run0"), Path("run1")], console, output=Path("both"))
    model, _ = load_checkpoint("both")
    dataset = load("argon.xyz")
    made = predicted_errors(model, dataset, np.arange(3), "forces")
    atoms = read("argon.xyz", 1)
    atoms.calc = GeoeqCalculator("both", "cpu")
    errors = atoms.get_forces() - read("argon.xyz", 1).get_forces()
    assert made.errors[15:30] == pytest.approx(errors.ravel(), abs=1e-9)
    norms = made.deviations[15:30].reshape(5, 3) * 3**0.5
    assert norms == pytest.approx(np.repeat(atoms.calc.results["forces_uncertainty"][:, None], 3, 1), abs=1e-9)


def test_a_run_that_was_trained_again_must_be_calibrated_again(folder, console):
    with pytest.raises(InputError, match=r"has no uncertainty\. Calibrate it: geoeq calibrate run0"):
        uncertain_folder(Path("run0"))
    calibrate([Path("run0")], console)
    assert uncertain_folder(Path("run0")) == Path("run0/uncertainty")
    model, meta = load_checkpoint("run1")
    save_checkpoint(model, "run0", meta)
    with pytest.raises(CheckpointError, match="calibrated for another model than the one now in 'run0'"):
        uncertain_folder(Path("run0"))


def test_what_cannot_be_calibrated(folder, console):
    with pytest.raises(InputError, match="Specify the folder of the ensemble: -o"):
        calibrate([Path("run0"), Path("run1")], console)
    model, meta = load_checkpoint("run1")
    save_checkpoint(model, "other", {**meta, "data": {**meta["data"], "split_sha256": "0"}})
    with pytest.raises(DataError, match="'other' was trained with another data set or split than 'run0'"):
        calibrate([Path("run0"), Path("other")], console, output=Path("both"))
    with pytest.raises(InputError, match="uncertainty of every output: omit"):
        calibrate([Path("run0"), Path("run1")], console, target="energy", output=Path("both"))


MD = ["--ensemble", "nvt", "--temperature", "40K", "--timestep", "2fs", "--frame-every", "1", "--log-every", "1"]


def test_a_simulation_stops_where_the_model_is_not_sure(folder, console, capsys, monkeypatch):
    from geoeq.simulate.md import md_plot as picture

    monkeypatch.setattr(picture, "draw_summary", lambda *arguments: None)
    calibrate([Path("run0")], console)
    write("one.xyz", read("argon.xyz", 0))
    command = ["md", "run0", "one.xyz", *MD, "--device", "cpu", "--steps", "6", "-o"]
    assert main([*command, "far", "--max-uncertainty", "1e6eV/atom"]) == 0
    frames = read("far/trajectory.extxyz", ":")
    each = np.array([frame.info["energy_uncertainty"] for frame in frames]) / 5
    assert len(each) == 7
    limit = float(np.sort(each)[3])
    first = int(np.flatnonzero(each > limit)[0])
    assert main([*command, "near", "--max-uncertainty", f"{limit:.12f}eV/atom"]) == 1
    said = capsys.readouterr().out
    assert f"Stopped at step {first}: the uncertainty of the energy is {each[first]:.3g} eV/atom, above" in said
    assert len(read("near/trajectory.extxyz", ":")) == first + 1
    log = Path("near/thermo.csv").read_text().splitlines()
    column = log[0].split(",").index("energy uncertainty [eV/atom]")
    assert float(log[-1].split(",")[column]) == pytest.approx(each[first], rel=1e-6)
    assert main([*command, "none", "--max-uncertainty", "1eV/Å"]) == 2
    assert "Only ensembles estimate that of forces" in capsys.readouterr().err


def test_frames_are_chosen_once_and_without_labels(folder, console):
    calibrate([Path("run0")], console)
    known = read("argon.xyz", ":10")
    frames = read("argon.xyz", "10:40")
    turned = frames[4].copy()
    turned.rotate(50, (1, 2, 3))
    turned = turned[[3, 1, 0, 4, 2]]
    old = known[2].copy()
    old.rotate(20, "x")
    write("known.xyz", known)
    write("path.xyz", [*frames, turned, old])
    picks = sample(Path("run0"), [Path("path.xyz")], 30, Path("picks.xyz"), console, known=[Path("known.xyz")])
    assert sorted(pick.info["source_frame"] for pick in picks) == list(range(30))
    assert "32 frames, 30 of them distinct and new" in console.file.getvalue()
    written = read("picks.xyz", ":")
    assert all(frame.calc is None for frame in written)
    atoms = written[0]
    atoms.calc = GeoeqCalculator("run0/uncertainty", "cpu")
    assert atoms.get_potential_energy() is not None
    assert atoms.calc.results["energy_uncertainty"] == pytest.approx(atoms.info["energy_uncertainty"], rel=1e-6)
    each = [pick.info["energy_uncertainty"] for pick in picks]
    assert each[0] == max(each)


def test_only_the_uncertain_ones_are_chosen(folder, console):
    calibrate([Path("run0"), Path("run1")], console, output=Path("both"))
    everything = sample(Path("both"), [Path("argon.xyz")], 60, Path("all.xyz"), console)
    each = np.sort([pick.info["energy_uncertainty"] / 5 for pick in everything])[::-1]
    assert all(pick.info["largest_forces_uncertainty"] > 0 for pick in everything)
    few = sample(Path("both"), [Path("argon.xyz")], 4, Path("few.xyz"), console, pool=8)
    assert min(pick.info["energy_uncertainty"] / 5 for pick in few) >= each[7] * (1 - 1e-9)
    limit = f"{(each[2] + each[3]) / 2:.12f}eV/atom"
    assert main(["sample", "both", "argon.xyz", "-o", "some.xyz", "--min-uncertainty", limit]) == 0
    assert len(read("some.xyz", ":")) == 3
    with pytest.raises(InputError, match="certain of all frames: the largest uncertainty is"):
        sample(Path("both"), [Path("argon.xyz")], 4, Path("few.xyz"), console, least=1e3)
    with pytest.raises(InputError, match="are already in the known files"):
        sample(Path("both"), [Path("argon.xyz")], 4, Path("few.xyz"), console, known=[Path("argon.xyz")])
    assert main(["sample", "both", "argon.xyz", "--min-uncertainty", "3"]) == 2
