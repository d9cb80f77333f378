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

#: Of networks that are too large for a test, the first layer with fewer channels.
SMALLER = {
    "is2re-equiformer_v2": ("layers=1", "channels=8", "hidden_channels=8"),
    "s2ef-equiformer_v2": ("layers=1", "channels=8", "hidden_channels=8", "lmax=2", "resolution=6", "cutoff=3.0"),
    "s2ef-faenet": ("model.init_args.layers=1",),
}


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
        *(f"model.init_args.{setting}" for setting in SMALLER.get(file.stem, ())),
    ]
    found = train(read_recipe(file, settings), file, console)
    (row,) = read_log(tmp_path / "run" / "log.csv")
    assert row["step"] == 1
    for results in found:
        headline = "MSE" if results.target == "positions" else "MAE"
        for part, errors in results.model.errors.items():  # of two systems of OC20's there is no test set
            assert errors[headline] < 100 * results.rows[0].errors[part][headline]


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_opens_with_its_command(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# geoeq train recipes/{file.parent.name}/{file.name}"
    assert (file.parent / "README.md").is_file()
