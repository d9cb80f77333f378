"""``geoeq train`` as people use it: where settings are written, which folder a run gets, and what mistakes say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ase.build import molecule
from ase.io import write

from geoeq.cli.main import main
from geoeq.training.folder import choose_folder
from geoeq.training.parsing import read_recipe

RECIPE = """
dataset: qm7
target: atomization_energy
sample: true
model: {class_path: geoeq.models.EGNN, init_args: {width: 8, layers: 1, cutoff: 3.0}}
epochs: 1
sample_epochs: 2
batch_size: 16
threads: 1
device: cpu
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a small recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    (tmp_path / "small.yaml").write_text(RECIPE)
    return tmp_path


def log_of(run: Path) -> list[str]:
    """The lines of a log, without times."""
    return [line.rpartition(",")[0] for line in (run / "log.csv").read_text().splitlines()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "3"], "key=value: epochs=3."),
        (["--epoch=3"], "Did you mean epochs=3?"),
        (["--batch-size", "4"], "key=value: batch_size=4."),
    ],
)
def test_a_setting_written_as_an_option_is_explained(folder, capsys, words, message):
    with pytest.raises(SystemExit):
        main(["train", "small.yaml", *words])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["epochs"], "command line: 'epochs' is not a setting. Settings are written as key=value: epochs=VALUE."),
        (["epoch"], "Did you mean epochs=VALUE?"),
        (
            ["dataset=qm10"],
            "command line: dataset: There is no file qm10. No data set is called 'qm10'. Did you mean",
        ),
        (["target=gap"], "command line: target: No target of qm7 is called 'gap'."),
    ],
)
def test_mistakes_of_the_command_line_are_not_blamed_on_the_file(folder, capsys, words, message):
    assert main(["train", "small.yaml", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_mistakes_of_an_inherited_recipe_name_its_file(folder, capsys):
    (folder / "base.yaml").write_text(RECIPE.replace("atomization_energy", "gap"))
    (folder / "mine.yaml").write_text("inherit: base.yaml\n")
    assert main(["train", "mine.yaml"]) == 2
    assert capsys.readouterr().err.startswith("base.yaml: target: No target of qm7 is called 'gap'.")


def test_a_mistake_in_a_card_names_its_path(folder, capsys):
    (folder / "mine.yaml").write_text("name: [")
    assert main(["data", "info", "mine.yaml"]) == 2
    assert capsys.readouterr().err.startswith("mine.yaml: this is not YAML")


def test_a_misspelt_action_of_data_is_explained(capsys):
    with pytest.raises(SystemExit):
        main(["data", "lst"])
    assert "Did you mean 'list'?" in capsys.readouterr().err


def test_the_command_line_wins_over_the_option_sample(folder, capsys):
    assert main(["train", "small.yaml", "epochs=1", "--sample", "run=a", "doctor=false"]) == 0
    assert json.loads((folder / "a" / "results.json").read_text())["epochs"] == 1
    assert "epochs=1 replaces sample_epochs: 2" in capsys.readouterr().out


def test_more_epochs_extend_a_finished_run_and_other_settings_get_a_folder(folder, capsys):
    quick = ["train", "small.yaml", "doctor=false"]
    assert main([*quick, "sample_epochs=1"]) == 0
    assert main([*quick, "sample_epochs=2"]) == 0
    assert "Resuming after epoch 1." in capsys.readouterr().out
    extended = folder / "runs" / "qm7-small"
    assert json.loads((extended / "results.json").read_text())["epochs"] == 2
    assert yaml.safe_load((extended / "recipe.yaml").read_text())["sample_epochs"] == 2
    assert main([*quick, "run=whole"]) == 0
    assert log_of(extended) == log_of(folder / "whole")

    assert main([*quick, "seed=1", "sample_epochs=1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "'runs/qm7-small' contains another run" in out
    assert (folder / "runs" / "qm7-small-seed1-sample_epochs1" / "results.json").is_file()
    assert json.loads((extended / "results.json").read_text())["epochs"] == 2


def test_folders_of_other_runs_are_passed_over(folder):
    def chosen(*settings: str, again: bool = False) -> str:
        recipe = read_recipe(folder / "small.yaml", settings)
        return choose_folder(recipe, folder / "small.yaml", settings, again=again).name

    def occupy(name: str, *settings: str) -> None:
        recipe = read_recipe(folder / "small.yaml", settings)
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "recipe.yaml").write_text(yaml.safe_dump(recipe.to_dict()))

    assert chosen("seed=1") == "qm7-small"
    occupy("qm7-small")
    assert chosen() == "qm7-small"
    assert chosen("seed=1", "log=csv", "optimizer.lr=1e-3") == "qm7-small-seed1-lr1e-3"
    occupy("qm7-small-seed1", "seed=2")
    assert chosen("seed=1") == "qm7-small-seed1-2"
    assert chosen("seed=1", again=True) == "qm7-small"
    occupy("qm7-small-seed1-2", "seed=1")
    assert chosen("seed=1", again=True) == "qm7-small-seed1-2"
    assert chosen("split=a b/c") == "qm7-small-splita-b-c"


def test_again_deletes_nothing_if_the_recipe_has_a_mistake(folder, capsys):
    assert main(["train", "small.yaml", "sample_epochs=1", "doctor=false"]) == 0
    assert main(["train", "small.yaml", "sample_epochs=1", "target=gap", "--again"]) == 2
    assert (folder / "runs" / "qm7-small" / "results.json").is_file()
    assert main(["train", "small.yaml", "target=gap", "run=runs/qm7-small"]) == 2
    assert "No target of qm7 is called 'gap'" in capsys.readouterr().err


def test_what_two_structures_cannot_tell(folder, capsys):
    frames = [molecule("H2O"), molecule("H2O")]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=number)
        atoms.info["energy"] = -14.0 - number
    write(folder / "two.extxyz", frames)
    settings = ["dataset=two.extxyz", "target=energy", "sample=false", "run=two", "doctor=false", "epochs=1"]
    assert main(["train", "small.yaml", *settings]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "has no structures for valid and test: the best epoch cannot be chosen and the error of the model" in out
    assert "the error of energy is unknown: no structures are left for validation and test" in out
    assert "the weights are those of the last of 1 epoch." in out
