"""Compare recipes for the same task, each trained for the same time."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data import Dataset, load
from geoeq.environment import describe_environment
from geoeq.errors import GeoeqError, RecipeError
from geoeq.files import write_json
from geoeq.models import Model
from geoeq.models.checkpoint import load_checkpoint
from geoeq.resources import import_extra
from geoeq.training.evaluation.comparison_table import Comparison, Contender
from geoeq.training.evaluation.metrics import headline
from geoeq.training.evaluation.results import Row, TargetResults
from geoeq.training.folder import RunFolder
from geoeq.training.parsing import error_context, read_recipe
from geoeq.training.recipe import Recipe
from geoeq.training.run import train

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["compare_recipes", "inference_milliseconds"]

#: Settings that all recipes must share: the task, and the hardware.
_SHARED = ("dataset", "target", "split", "sample", "device", "threads")

#: Largest number of test structures to time the inference with.
_TIMED = 1024


def compare_recipes(
    files: Sequence[str | Path],
    budget: float,
    console: Console,
    *,
    settings: Sequence[str] = (),
    folder: str | Path | None = None,
    again: bool = False,
) -> Comparison:
    """Train each recipe for the same time, one after the other, and write a table and a plot.

    Each recipe has its run folder in ``folder``, beside compare.md, compare.json and compare.png, which are rewritten
    after each recipe. A second call resumes: finished runs of the same recipe and budget are not repeated. A recipe
    that fails is reported in the table; the others still run.

    Args:
        files: files of the recipes.
        budget: seconds of training per recipe, without data preparation, validation and test.
        console: output console of the progress and the table.
        settings: ``key=value`` overrides of every recipe.
        folder: folder of the comparison; None for runs/compare-DATASET.
        again: delete earlier runs of these recipes.

    Raises:
        RecipeError: a recipe cannot be read, two have different tasks (the message names both and the difference), or a
            folder contains another run.
        MissingExtraError: the extra "train" is not installed.
    """
    folder = None if folder is None else Path(folder)
    import_extra("lightning", "train")
    from geoeq.training.evaluation.training_plots import draw_comparison

    _check_settings(settings)
    names = _names([Path(file) for file in files])
    recipes = {name: read_recipe(file, settings, console.print) for name, file in names.items()}
    _check_same_task(recipes)
    first = next(iter(recipes.values()))
    folder = folder or Path("runs") / f"compare-{Path(first.dataset).stem}"
    recipes = {
        name: dataclasses.replace(recipe, budget=budget, run=str(folder / name)) for name, recipe in recipes.items()
    }
    for name, recipe in recipes.items():
        with error_context(name):
            RunFolder(Path(str(recipe.run))).check(recipe, again=again)

    comparison = Comparison.start(first, budget, describe_environment())
    for number, (name, recipe) in enumerate(recipes.items(), 1):
        console.rule(f"{name} ({number} of {len(recipes)})", align="left")
        comparison.contenders.append(_contender(name, names[name], recipe, console, again, settings))
        comparison.write(folder)
        if comparison.finished:
            draw_comparison(folder / "compare.png", comparison, folder)
    console.rule(style="dim")
    comparison.print(console)
    written = ["compare.md", "compare.json", *(["compare.png"] if comparison.finished else [])]
    console.print(f"The results are in '{folder}': {', '.join(written)}.", highlight=False, soft_wrap=True)
    return comparison


def _contender(
    name: str, file: Path, recipe: Recipe, console: Console, again: bool, settings: Sequence[str]
) -> Contender:
    """Train and measure one recipe; return a failure as a result."""
    run = RunFolder(Path(str(recipe.run)))
    try:
        results = train(recipe, file, console, again=again, settings=settings)
        done = run.results() or {}
        speed = _speed(run, recipe)
    except Exception as error:  # the other recipes still run
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, GeoeqError):
            reason = f"{type(error).__name__}: {reason}"
        console.print(f"{name} failed: {reason}", style="red", highlight=False, markup=False)
        return Contender(name, recipe.model.class_path, failure=reason)
    return Contender(
        name,
        recipe.model.class_path,
        parameters=done["parameters"],
        epochs=done["epochs"],
        best_epoch=done["best_epoch"],
        training_seconds=done["budget_seconds"],
        milliseconds=speed,
        errors={entry.target: _test_error(entry.model, entry.target) for entry in results},
        baselines={entry.target: _best_baseline(entry) for entry in results},
    )


def _test_error(row: Row, target: str) -> float:
    return row.errors.get("test", {}).get(headline(target), math.nan)


def _best_baseline(entry: TargetResults) -> tuple[str, float]:
    row = [row for row in entry.rows if row.kind == "baseline"][-1]
    return row.name, _test_error(row, entry.target)


def _speed(run: RunFolder, recipe: Recipe) -> float:
    """Return the milliseconds per structure, measured once after the run."""
    known = run.read_json("speed.json")
    if known is None:
        model, meta = load_checkpoint(run.path, trust=True)  # trained here, of a class that the recipe names
        dataset: Dataset = load(recipe.dataset, sample=recipe.sample, trust=True)
        split = dataset.split(meta["data"]["split"])
        indices = split["test"] if len(split["test"]) else split["train"]
        cuda = recipe.device == "cuda" or (recipe.device == "auto" and torch.cuda.is_available())
        with _threads(recipe.threads):
            measured = inference_milliseconds(
                model, dataset, indices[:_TIMED], device=torch.device("cuda" if cuda else "cpu")
            )
        known = {"milliseconds_per_structure": round(measured, 5), "structures": min(len(indices), _TIMED)}
        write_json(run.path / "speed.json", known)
    value: float = known["milliseconds_per_structure"]
    return value


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _names(files: Sequence[Path]) -> dict[str, Path]:
    """Return a name for each recipe: the name of its file, with its folder if two files have the same name."""
    resolved = list(dict.fromkeys(file.resolve() for file in files))
    stems = [file.stem for file in resolved]
    named = [file.stem if stems.count(file.stem) == 1 else f"{file.parent.name}-{file.stem}" for file in resolved]
    if len(set(named)) < len(named):
        raise RecipeError(f"Two recipes have the name '{max(named, key=named.count)}': rename one of the files.")
    return dict(zip(named, resolved))


def _check_settings(settings: Sequence[str]) -> None:
    for pair in settings:
        key = pair.partition("=")[0]
        if key in ("run", "budget"):
            raise RecipeError(f"command line: {pair}: compare sets '{key}' for each recipe; use --{key}.")


def _check_same_task(recipes: dict[str, Recipe]) -> None:
    """Raise if two recipes differ in their targets, data or hardware."""
    first, *others = recipes
    reference = recipes[first]
    for name in others:
        other = recipes[name]
        for setting in _SHARED:
            ours, theirs = _value(reference, setting), _value(other, setting)
            if ours != theirs and setting == "split" and None in (ours, theirs):
                default = load(reference.dataset, sample=reference.sample, trust=True).card.default_split
                ours, theirs = ours or default, theirs or default
            if ours != theirs:
                raise RecipeError(
                    f"{first} and {name} cannot be compared: {setting} is {_show(ours)} in {first} and {_show(theirs)} "
                    f"in {name}. Recipes of one comparison must have the same {', '.join(_SHARED)}; set it for all on "
                    f"the command line with {setting}=VALUE."
                )


def _value(recipe: Recipe, setting: str) -> Any:
    return recipe.targets if setting == "target" else getattr(recipe, setting)


def _show(value: Any) -> str:
    return "null" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


def inference_milliseconds(
    model: Model,
    dataset: Dataset,
    indices: NDArray[np.int64],
    *,
    device: torch.device,
    batch_size: int = 128,
    passes: int = 5,
    seconds: float = 10.0,
) -> float:
    """Return the inference time in milliseconds per structure, in batches, as the median of several passes.

    The time is measured from a batch in memory, with its edges, to the outputs, without derivatives; a first batch is
    not counted.

    Args:
        model: model to time.
        dataset: data set.
        indices: indices of the structures.
        device: device of the computation.
        batch_size: number of structures per batch.
        passes: largest number of passes over the structures.
        seconds: time in seconds after which no further pass begins.
    """
    dtype = next(model.parameters()).dtype
    model = model.to(device).eval()
    loader = dataset.loader(indices, batch_size, cutoff=model.cutoff, targets=[], dtype=dtype)
    batches = [batch.to(device) for batch in loader]

    def run() -> float:
        start = time.perf_counter()
        for batch in batches:
            model(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with torch.no_grad():
        model(batches[0])
        times = [run()]
        while len(times) < passes and sum(times) < seconds:
            times.append(run())
    return 1e3 * statistics.median(times) / len(indices)
