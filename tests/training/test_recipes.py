"""Every recipe that comes with geoeq is read, and run for one step on its sample."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from geoeq.resources import share
from geoeq.training.log import read_log
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train

RECIPES = sorted(share("recipes").glob("*/*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_runs_for_one_step(file: Path, tmp_path: Path, console: Console) -> None:
    settings = [
        "sample=true",
        "max_steps=1",
        "threads=1",
        "batch_size=8",
        "workers=0",
        "device=cpu",
        f"run={tmp_path}/run",
    ]
    (results,) = train(read_recipe(file, settings), file, console)
    (row,) = read_log(tmp_path / "run" / "log.csv")
    assert row["step"] == 1
    headline = "MSE" if results.target == "positions" else "MAE"
    assert results.model.errors["test"][headline] < 100 * results.rows[0].errors["test"][headline]


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_opens_with_its_command(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# geoeq train recipes/{file.parent.name}/{file.name}"
    assert (file.parent / "README.md").is_file()
