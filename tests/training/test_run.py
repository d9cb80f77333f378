"""A run from recipe to results, and its exact resumption after a kill."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from geoeq.errors import CheckpointError, RecipeError
from geoeq.files import read_log
from geoeq.models import load_checkpoint
from geoeq.training.evaluation.evaluate import evaluate
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train

#: A user's model that draws random numbers in training, and kills its process at a given call.
DYING = """
import os, signal, torch
from geoeq.models import EGNN

class DyingEGNN(EGNN):
    calls = 0

    def encode(self, data, graph):
        DyingEGNN.calls += 1
        if os.environ.get("DIE_IN_CALL") == str(DyingEGNN.calls):
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.nn.functional.dropout(super().encode(data, graph), 0.1, self.training)

replace, replaced = os.replace, 0

def dying_replace(source, target):
    global replaced
    replaced += str(target).endswith(os.environ.get("DIE_WRITING", "nothing"))
    if replaced == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

if "DIE_WRITING" in os.environ:
    os.replace = dying_replace
"""

SETTINGS = [
    "model.class_path=dying.DyingEGNN", "epochs=5", "ema=0.9", "gradient_clip=1.0", "optimizer.lr=3e-3",
    "schedule={name: plateau, patience: 1, warmup_epochs: 1}", "loss.name=huber",
]  # fmt: skip


def comparable_log(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_log(folder / "log.csv")]


@pytest.fixture
def dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "dying", raising=False)  # of another test
    return tmp_path


# Of the 100 molecules of the sample 80 are for training: 5 batches and one validation an epoch, and one call
# before; so call 15 is amid the third epoch, and call 18 is its validation.
@pytest.mark.parametrize(
    "moment",
    [
        {"DIE_IN_CALL": "15"},
        pytest.param({"DIE_IN_CALL": "18"}, marks=pytest.mark.slow),
        pytest.param({"DIE_IN_CALL": "32"}, marks=pytest.mark.slow),
        pytest.param({"DIE_WRITING": "state.pt"}, marks=pytest.mark.slow),
        pytest.param({"DIE_WRITING": "model.json"}, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_as_an_uninterrupted_one(
    dying: Path, recipe_file: Path, console: Console, moment: dict[str, str]
) -> None:
    kill_and_go_on(dying, recipe_file, console, moment, SETTINGS)
    assert "Resuming after epoch" in console.file.getvalue()
    assert len(comparable_log(dying / "whole")) == 5


# 2 × (5 batches and a validation): call 17 is the last batch of the third epoch.
@pytest.mark.parametrize(
    "settings",
    [
        ["save_every=2"],
        pytest.param(["save_every=1", "accumulate=2"], marks=pytest.mark.slow),
        pytest.param(["save_every=1", "batch_atoms=250"], marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_killed_amid_an_epoch_goes_on_there(
    dying: Path, recipe_file: Path, console: Console, settings: list[str]
) -> None:
    kill_and_go_on(dying, recipe_file, console, {"DIE_IN_CALL": "17"}, [*SETTINGS, *settings])
    going_on = re.search(r"Resuming after epoch 2 and (\d+) batches\.", console.file.getvalue())
    assert going_on is not None
    assert int(going_on[1]) >= 2


def kill_and_go_on(dying: Path, file: Path, console: Console, moment: dict[str, str], settings: list[str]) -> None:
    """A run that is killed ends with the bits of one that is not."""
    command = [sys.executable, "-m", "geoeq", "train", str(file), *settings, "run=killed"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, **moment, "PYTHONPATH": str(root)}
    died = subprocess.run(command, env=environment, cwd=dying, capture_output=True, timeout=120)
    assert died.returncode == -9, died.stderr.decode()
    assert not (dying / "killed" / "results.json").exists()

    for folder in ("killed", "whole"):
        recipe = read_recipe(file, [*settings, f"run={dying / folder}"])
        train(recipe, file, console)
    killed, whole = dying / "killed", dying / "whole"
    assert comparable_log(killed) == comparable_log(whole)
    weights = Path("checkpoint") / "model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
    results = [json.loads((folder / "results.json").read_text()) for folder in (killed, whole)]
    assert results[0]["targets"] == results[1]["targets"]
    assert results[0]["best_epoch"] == results[1]["best_epoch"]


def test_a_run_leaves_everything(train_small) -> None:
    folder, (results,) = train_small("ema=0.9")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "recipe.yaml", "environment.json", "log.csv", "state.pt", "checkpoint", "results.json", "parity.png",
        "learning.png",
    }  # fmt: skip
    assert json.loads((folder / "environment.json").read_text())["torch"] == torch.__version__
    assert [row.name for row in results.rows] == ["mean", "linear model on composition", "EGNN"]
    assert results.unit == "kcal/mol"
    assert read_recipe(folder / "recipe.yaml").epochs == 2
    model, meta = load_checkpoint(folder / "checkpoint")
    assert meta["data"]["sizes"] == {"train": 80, "valid": 10, "test": 10}
    assert set(model.elements) <= {1, 6, 7, 8, 16}


def test_untrained_is_as_good_as_composition_and_training_helps(train_small) -> None:
    _, (before,) = train_small("optimizer.lr=1e-12", "epochs=1", folder="before")
    composition = next(row for row in before.rows if "composition" in row.name)
    assert before.model.errors["valid"]["RMSE"] < 4 * composition.errors["valid"]["RMSE"]  # the mean has 9 times
    folder, _ = train_small("optimizer.lr=1e-2", "epochs=30", folder="after")
    log = read_log(folder / "log.csv")
    assert log[-1]["train loss"] < 0.5 * log[0]["train loss"]


def test_evaluate_gives_the_same_table(train_small, console: Console) -> None:
    folder, (trained,) = train_small()
    (evaluated,) = evaluate(folder, console)
    assert evaluated.to_dict() == trained.to_dict()
    (only,) = evaluate(folder / "checkpoint", console, "train")
    assert set(only.model.errors) == {"train"}
    with pytest.raises(RecipeError, match="Did you mean 'test'"):
        evaluate(folder, console, "tests")
    with pytest.raises(CheckpointError, match="There is no trained model"):
        evaluate(folder.parent, console)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(train_small) -> None:
    weights = []
    for seed, folder in ((0, "a"), (0, "b"), (1, "c")):
        path, _ = train_small(f"seed={seed}", folder=folder)
        weights.append((path / "checkpoint" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_finished_run_shows_its_table_and_again_trains_anew(train_small, console: Console) -> None:
    folder, first = train_small()
    stamp = (folder / "checkpoint" / "model.safetensors").stat().st_mtime_ns
    _, second = train_small()
    assert [entry.to_dict() for entry in second] == [entry.to_dict() for entry in first]
    assert (folder / "checkpoint" / "model.safetensors").stat().st_mtime_ns == stamp
    assert "is finished; --again deletes it" in console.file.getvalue()
    train_small(again=True)
    assert (folder / "checkpoint" / "model.safetensors").stat().st_mtime_ns > stamp


def test_another_recipe_in_the_folder_is_an_error(train_small) -> None:
    train_small()
    with pytest.raises(RecipeError, match=r"optimizer\.lr is 0\.001 there and 0\.01 here.*run=FOLDER"):
        train_small("optimizer.lr=1e-2")
    train_small("log=auto")  # the kind of log does not matter


def test_a_run_of_an_older_version_lacks_new_settings(train_small) -> None:
    folder, _ = train_small()
    file = folder / "recipe.yaml"
    file.write_text(file.read_text().replace("accumulate: 1\n", ""))
    train_small()
    with pytest.raises(RecipeError, match="accumulate is 1 there and 2 here"):
        train_small("accumulate=2")


def test_files_of_others_are_never_thrown_away(train_small, recipe_file: Path) -> None:
    folder = recipe_file.parent / "run"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    with pytest.raises(RecipeError, match="contains other files"):
        train_small()
    (folder / "thesis.txt").rename(folder.parent / "thesis.txt")
    train_small()
    (folder / "thesis.txt").write_text("years")
    train_small(again=True)
    assert (folder / "thesis.txt").read_text() == "years"


def test_early_stop_ends_a_run_without_progress(train_small) -> None:
    folder, _ = train_small("early_stop=2", "epochs=50", "optimizer.lr=1e-30")
    assert len(read_log(folder / "log.csv")) < 50


def test_gradient_clipping_and_schedule_reach_the_optimizer(train_small) -> None:
    folder, _ = train_small("schedule={name: cosine, warmup_epochs: 1}", "epochs=3", "optimizer.lr=1e-2")
    rates = [row["lr"] for row in read_log(folder / "log.csv")]
    assert rates[0] == pytest.approx(1e-2 * 5 / 6)
    assert rates[0] > rates[1] > rates[2] > 0
    steps = [read_log(train_small(f"gradient_clip={limit}", folder=str(limit))[0] / "log.csv") for limit in (1e-9, 1e9)]
    assert steps[0] != steps[1]


def test_without_validation_the_last_weights_are_kept(train_small) -> None:
    folder, _ = train_small("validate_every=5", "max_steps=3")
    assert json.loads((folder / "results.json").read_text())["best_epoch"] == 1
    assert read_log(folder / "log.csv")[0]["step"] == 3


def test_a_loss_that_explodes_is_named(train_small) -> None:
    with pytest.raises(RecipeError, match=r"The loss became NaN or infinite in epoch 1.*Lower optimizer\.lr"):
        train_small("optimizer.lr=1e30")


@pytest.mark.parametrize("precision", ["64", "bf16-mixed"])
def test_precision(train_small, precision: str) -> None:
    folder, (results,) = train_small(f"precision={precision}")
    model, _ = load_checkpoint(folder)
    assert next(model.parameters()).dtype == (torch.float64 if precision == "64" else torch.float32)
    assert results.model.errors["test"]["MAE"] < 100


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dataset=qm8", "small.yaml: dataset: There is no file qm8. No data set is called 'qm8'."),
        ("target=energyy", "small.yaml: target: No target of qm7 is called 'energyy'. Known: atomization_energy."),
        ("split=random", "small.yaml: split: qm7: No split is called 'random'."),
        ("loss.weights={gap: 2.0}", "small.yaml: loss: No target of this recipe is called 'gap'."),
        ("model.init_args={layers: 1, edge_inputs: [bessel]}", "small.yaml: model: "),
    ],
)
def test_names_that_there_are_not(train_small, recipe_file: Path, setting: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        train_small(setting)
    assert message in str(error.value)
    assert not (recipe_file.parent / "run").exists()
