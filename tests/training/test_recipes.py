"""Every shipped recipe is read and run for one step, on its sample or on generated structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from geoeq.data import load_card
from geoeq.files import read_log
from geoeq.resources import share
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train

RECIPES = sorted(share("recipes").glob("*/*.yaml"))

#: Overrides that make networks for large structures small enough for a test.
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

#: Recipes that take seconds each.
SLOW = ("s2ef-equiformer_v2", "s2ef-faenet", "equiformer_v2", "escn")

#: Potentials of full size, whose steps have second derivatives.
LARGE = ("3bpa", "rmd17")


@pytest.fixture
def water(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of the data set "water", which has no sample, placed by hand: two molecules held by springs."""
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path))
    random = np.random.default_rng(0)
    molecule = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])
    two = np.concatenate([molecule, molecule + np.array([0.0, 0.0, 3.0])])
    for number, count in enumerate((80, 80, 160, 80)):
        folder = tmp_path / f"water/raw/deepmd-kit-2.2.7/examples/water/data/data_{number}"
        (folder / "set.000").mkdir(parents=True)
        (folder / "type.raw").write_text("0 1 1 0 1 1")
        (folder / "type_map.raw").write_text("O H")
        moved = random.normal(0, 0.05, (count, 18))
        arrays = {
            "coord": two.ravel() + moved,
            "box": np.tile(np.eye(3).ravel() * 6.0, (count, 1)),
            "energy": 5.0 * (moved**2).sum(1) - 900.0,
            "force": -10.0 * moved,
        }
        for name, array in arrays.items():
            np.save(folder / "set.000" / f"{name}.npy", array)


def _with_its_mark(file: Path) -> Any:
    large = file.stem in SLOW or (file.parent.name in LARGE and "quick" not in file.stem)
    return pytest.param(file, marks=pytest.mark.slow if large else ())


@pytest.mark.parametrize(
    "file", [_with_its_mark(file) for file in RECIPES], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_recipe_runs_for_one_step(file: Path, tmp_path: Path, console: Console, request: pytest.FixtureRequest) -> None:
    dataset = read_recipe(file, []).dataset
    shipped = load_card(dataset).sample is not None
    if not shipped:
        request.getfixturevalue(dataset)
    settings = [
        f"sample={str(shipped).lower()}",
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
        for part, errors in results.model.errors.items():  # two systems of OC20 are training data only
            assert np.isfinite(errors[headline])
            if len(found) == 1 or results.target != "energy":  # the energy of a potential starts in units of its forces
                assert errors[headline] < 100 * results.rows[0].errors[part][headline]


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_opens_with_its_command(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# geoeq train recipes/{file.parent.name}/{file.name}"
    assert (file.parent / "README.md").is_file()
