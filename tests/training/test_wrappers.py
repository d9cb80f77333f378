"""A wrapper in a recipe: the heads go to the network inside, and the checkpoint has both."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from geoeq.models import EGNN, Dipole, FrameAveraging, GraphScalar
from geoeq.training import load_checkpoint
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train

RECIPE = """
dataset: qm7
target: atomization_energy
sample: true
model:
  class_path: geoeq.models.FrameAveraging
  init_args:
    frames: FRAMES
    model: {class_path: geoeq.models.EGNN, init_args: {width: 8, layers: 1, cutoff: 3.0}}
epochs: 1
batch_size: 32
threads: 1
device: cpu
"""


@pytest.mark.parametrize("frames", ["full", "stochastic", "weighted"])
def test_a_recipe_with_a_wrapper_trains(tmp_path: Path, frames: str) -> None:
    file = tmp_path / "wrapped.yaml"
    file.write_text(RECIPE.replace("FRAMES", frames))
    recipe = read_recipe(file, [f"run={tmp_path / 'run'}"])
    train(recipe, file, Console(file=io.StringIO()))
    model, _ = load_checkpoint(tmp_path / "run")
    assert isinstance(model, FrameAveraging)
    assert isinstance(model.model, EGNN)
    assert model.frames == frames
    assert isinstance(model.model.heads[0], GraphScalar)
    assert model.elements


def test_a_head_that_is_named_goes_inside_as_written() -> None:
    model = FrameAveraging(EGNN([Dipole("dipole")], width=8, layers=1))
    assert list(model.fields) == ["dipole"]
    assert isinstance(model.heads[0], Dipole)
