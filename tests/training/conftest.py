"""Small data sets and recipes for the tests of training."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from geoeq.training.evaluation.results import TargetResults
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train

SMALL = """
dataset: qm7
target: atomization_energy
sample: true
model: {class_path: geoeq.models.EGNN, init_args: {width: 8, layers: 1, cutoff: 3.0}}
epochs: 2
batch_size: 16
threads: 1
device: cpu
"""


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A cache of data sets of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOEQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """A recipe that trains in less than a second."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def console() -> Console:
    """A console that writes into memory."""
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def train_small(recipe_file: Path, console: Console) -> Callable[..., tuple[Path, list[TargetResults]]]:
    """Train the small recipe with other settings: ``train_small("epochs=3")`` gives the folder and the results."""

    def run(*settings: str, folder: str = "run", again: bool = False) -> tuple[Path, list[TargetResults]]:
        path = recipe_file.parent / folder
        recipe = read_recipe(recipe_file, [f"run={path}", *settings])
        return path, train(recipe, recipe_file, console, again=again)

    return run
