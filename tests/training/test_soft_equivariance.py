"""Soft equivariance in a run: errors and strengths are logged, and a killed run resumes with them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from rich.console import Console

from geoeq.errors import RecipeError
from geoeq.files import read_log
from geoeq.models import FAENet, SoftEquivariance, load_checkpoint
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train

RECIPE = """
dataset: qm7
target: atomization_energy
sample: true
model:
  class_path: geoeq.models.SoftEquivariance
  init_args:
    symmetries: [rotation, reflection about z, translation]
    tune_after: 8
    model:
      class_path: dying.DyingFAENet
      init_args:
        heads: [{class_path: geoeq.models.EveryLayerScalar}]
        width: 8
        filters: 8
        layers: 1
        num_basis: 8
        cutoff: 3.0
loss: {auxiliary: {equivariance: 0.5}}
epochs: 4
batch_size: 16
ema: 0.9
precision: "64"
threads: 1
device: cpu
"""

#: The sample has 80 molecules for training: 5 steps of 5 calls each, and 2 validations of the average, an epoch.
DYING = """
from geoeq.models import FAENet

class DyingFAENet(FAENet):
    calls, last = 0, None

    def encode(self, data, graph):
        DyingFAENet.calls += 1
        if DyingFAENet.calls == DyingFAENet.last:
            raise InterruptedError("killed")
        return super().encode(data, graph)
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dying.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "dying", raising=False)
    (tmp_path / "soft.yaml").write_text(RECIPE)
    return tmp_path / "soft.yaml"


def rows_of(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_log(folder / "log.csv")]


def test_a_run_that_was_killed_goes_on_with_its_strengths(recipe: Path, console: Console) -> None:
    """Killed after the strengths were tuned in the second epoch, amid the third."""
    dying = importlib.import_module("dying").DyingFAENet
    dying.last = 65
    with pytest.raises(InterruptedError):
        train(read_recipe(recipe, [f"run={recipe.parent / 'killed'}"]), recipe, console)
    dying.last = None
    assert len(rows_of(recipe.parent / "killed")) == 2
    for name in ("killed", "whole"):
        train(read_recipe(recipe, [f"run={recipe.parent / name}"]), recipe, console)
    assert "Resuming after epoch 2" in console.file.getvalue()
    killed, whole = (rows_of(recipe.parent / name) for name in ("killed", "whole"))
    assert killed == whole

    first, second, last = whole[0], whole[1], whole[-1]
    assert first["strength of rotation"] == first["strength of reflection about z"] == 1.0
    assert min(second["strength of rotation"], second["strength of reflection about z"]) < 1.0
    assert max(second["strength of rotation"], second["strength of reflection about z"]) == 1.0
    assert last["strength of rotation"] == second["strength of rotation"]
    assert last["strength of translation"] == 1.0  # it is a network of differences of positions
    assert first["error of translation"] < 1e-5 < first["error of rotation"]
    assert first["train auxiliary equivariance"] > 0
    model, _ = load_checkpoint(recipe.parent / "killed", trust=True)
    assert isinstance(model, SoftEquivariance)
    assert isinstance(model.model, FAENet)


def test_without_the_loss_nothing_is_measured(recipe: Path, console: Console) -> None:
    folder = recipe.parent / "run"
    train(read_recipe(recipe, [f"run={folder}", "epochs=1", "loss.auxiliary={}"]), recipe, console)
    (row,) = rows_of(folder)
    assert row["error of rotation"] == 0.0
    assert "train auxiliary equivariance" not in row


def test_a_wrong_symmetry_is_an_error_of_the_recipe(recipe: Path, console: Console) -> None:
    text = recipe.read_text().replace("reflection about z", "reflection along z")
    recipe.write_text(text)
    with pytest.raises(RecipeError, match=r"soft.yaml: model: .*'reflection along z'. Did you mean 'reflection about"):
        train(read_recipe(recipe, ["epochs=1"]), recipe, console)
