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

#: What makes networks for large structures small enough for a test.
FEWER = ("model.init_args.layers=1", "model.init_args.cutoff=3.0")
SLIM = tuple(f"model.init_args.{key}" for key in ("channels=8", "hidden_channels=8", "lmax=2", "resolution=6"))
SMALLER = {
    "is2re-equiformer_v2": (*FEWER, *SLIM),
    "s2ef-egnn": (*FEWER, "model.init_args.width=32"),
    "s2ef-egnn-quick": FEWER,
    "s2ef-equiformer_v2": (*FEWER, *SLIM),
    "s2ef-equiformer_v2-quick": FEWER,
    "s2ef-faenet": tuple(setting.replace("init_args", "init_args.model.init_args") for setting in FEWER),
    "s2ef-faenet-quick": tuple(setting.replace("init_args", "init_args.model.init_args") for setting in FEWER),
}


#: Seconds each.
SLOW = ("s2ef-equiformer_v2", "s2ef-faenet")


@pytest.mark.parametrize(
    "file",
    [pytest.param(file, marks=[pytest.mark.slow] * (file.stem in SLOW)) for file in RECIPES],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_recipe_runs_for_one_step(file: Path, tmp_path: Path, console: Console) -> None:
    settings = [
        "sample=true",
        "max_steps=1",
        "threads=1",
        "batch_size=8",
        "workers=0",
        "device=cpu",
        f"run={tmp_path}/run",
        *SMALLER.get(file.stem, ()),
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
