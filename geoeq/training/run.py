"""One training run, from a recipe to a table, two pictures and a checkpoint."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from geoeq.data_doctor import diagnose
from geoeq.errors import DataError, GeoeqError, RecipeError
from geoeq.files import read_log
from geoeq.models.checkpoint import save_checkpoint
from geoeq.resources import import_extra
from geoeq.training.distributed import ProcessGroup, join_processes
from geoeq.training.evaluation.results import TargetResults, compare, predict_parts
from geoeq.training.folder import RunFolder
from geoeq.training.loaders import Epochs, check_loader, train_loader
from geoeq.training.memory import is_out_of_memory
from geoeq.training.parsing import error_context
from geoeq.training.plan import out_of_memory
from geoeq.training.recipe import Recipe
from geoeq.training.setup import Experiment, build_experiment

if TYPE_CHECKING:
    from rich.console import Console

    from geoeq.training.checkpointing import CheckpointCallback

__all__ = ["train"]


def train(recipe: Recipe, file: Path, console: Console, *, again: bool = False) -> list[TargetResults]:
    """Train a model as a recipe says, going on where a killed run of the same recipe stopped.

    The folder of the run then holds recipe.yaml (everything, defaults included), environment.json, log.csv,
    checkpoint/, results.json, parity.png and learning.png (one of each for every target).

    Args:
        recipe: the settings.
        file: where they come from; it gives the folder its name, and errors their place.
        console: for the progress and the table.
        again: throw away what an earlier run left in the folder.

    Raises:
        RecipeError: a setting cannot work; the message names the file and the section.
        MissingExtraError: the extra "train" is not installed.
    """
    for module in ("lightning", "rich", "matplotlib"):
        import_extra(module, "train")
    from geoeq.training.evaluation.results import print_results

    folder = RunFolder(recipe.folder(file))
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        with error_context(file.name):
            processes = stack.enter_context(join_processes(recipe))
            if processes.is_main:
                folder.check(recipe, again=again)
        stack.enter_context(_algorithms(recipe, file.name, processes))
        if not processes.is_main:
            return _help(recipe, file, folder, processes)
        if folder.results() is None:
            _work(recipe, file, folder, console, processes)
        else:
            processes.barrier()
            console.print(f"The run in '{folder.path}' is finished; --again trains from scratch.", highlight=False)
    done = folder.results() or {}
    results = [TargetResults.from_dict(entry) for entry in done["targets"]]
    for entry in results:
        print_results(console, entry, done["dataset"], done["sizes"])
    console.print(
        f"Training took {done['training_seconds']:.0f} s; epoch {done['best_epoch']} of {done['epochs']} was the best. "
        f"Model, log and pictures are in '{folder.path}'.",
        highlight=False,
        soft_wrap=True,
    )
    return results


def _work(recipe: Recipe, file: Path, folder: RunFolder, console: Console, processes: ProcessGroup) -> None:
    """All of a run that is not finished."""
    experiment = build_experiment(recipe, file.name)
    if recipe.doctor:
        with error_context(file.name, "dataset"):
            _examine(experiment, console)
    folder.start(recipe)
    _announce(console, experiment, folder.path, processes)
    with error_context(file.name, next(iter(recipe.batch_limit))):
        loaders = train_loader(experiment, processes), check_loader(experiment, processes)
    processes.barrier()  # the others find all that is prepared here
    _finish(experiment, folder, _fit(experiment, folder, console, processes, *loaders))


def _help(recipe: Recipe, file: Path, folder: RunFolder, processes: ProcessGroup) -> list[TargetResults]:
    """The part of a process that is not the first: it computes, and writes and shows nothing."""
    from rich.console import Console

    processes.barrier()
    if folder.results() is None:
        experiment = build_experiment(recipe, file.name)
        _fit(
            experiment,
            folder,
            Console(quiet=True),
            processes,
            train_loader(experiment, processes),
            check_loader(experiment, processes),
        )
    return []


def _fit(
    experiment: Experiment,
    folder: RunFolder,
    console: Console,
    processes: ProcessGroup,
    batches: Epochs,
    checks: DataLoader[Batch] | None,
) -> CheckpointCallback:
    """``fit``; a want of memory is explained when all that it held is given back, and so is the loss of a process.

    Raises:
        GeoeqError: there was no memory left, or another process has ended.
    """
    from geoeq.training.fit import fit

    try:
        return fit(experiment, folder, console, processes, batches, checks)
    except (RuntimeError, MemoryError) as error:
        if processes.is_peer_failure(error):
            raise GeoeqError(
                f"Process {processes.rank} of {processes.size} (counted from 0) lost another process, which "
                "has ended. Run the same commands again to resume from the last saved state."
            ) from error
        if not is_out_of_memory(error):
            raise
    raise out_of_memory(experiment)


def _examine(experiment: Experiment, console: Console) -> None:
    """The quick form of the data doctor: a line for each warning.

    Raises:
        DataError: it finds an error.
    """
    cutoff = getattr(experiment.model, "cutoff", None)
    found = diagnose(experiment.dataset, split=experiment.split, targets=experiment.recipe.targets, cutoff=cutoff)
    for warning in found.of("warning"):
        console.print(f"Data: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    errors = " ".join(str(error) for error in found.of("error"))
    if errors:
        raise DataError(
            f"{errors} 'geoeq data doctor {experiment.recipe.dataset}' says more; doctor: false (--no-doctor) trains "
            "on them all the same."
        )


def _announce(console: Console, experiment: Experiment, folder: Path, processes: ProcessGroup) -> None:
    parameters = sum(parameter.numel() for parameter in experiment.model.parameters())
    sample = " (sample)" if experiment.recipe.sample else ""
    many = f" in {processes.size} processes" if processes.size > 1 else ""
    console.print(
        f"{experiment.model_name} with {parameters:,} parameters learns {', '.join(experiment.recipe.targets)} from "
        f"{experiment.sizes['train']:,} structures of {experiment.recipe.dataset}{sample}, on "
        f"{experiment.device.type}{many}, in '{folder}'.",
        highlight=False,
        soft_wrap=True,
    )
    for note in experiment.dataset.notes:
        console.print(f"{experiment.recipe.dataset}: {note}", highlight=False, markup=False, soft_wrap=True)


def _finish(experiment: Experiment, folder: RunFolder, checkpoints: CheckpointCallback) -> None:
    """Measure the best weights; write results and pictures."""
    from geoeq.training.evaluation.training_plots import draw_learning, draw_parity

    recipe, sizes, name = experiment.recipe, experiment.sizes, experiment.model_name
    experiment.model.load_state_dict(checkpoints.best["weights"])
    save_checkpoint(experiment.model, folder.path / "checkpoint", experiment.meta())
    parts = {part: experiment.split[part] for part in ("valid", "test") if sizes[part]}
    found = predict_parts(experiment.model, experiment.dataset, parts, recipe.targets, device=experiment.device)
    results, rows = [], read_log(folder.path / "log.csv")
    for target, predictions in found.items():
        entry = compare(
            experiment.dataset, target, name, predictions, experiment.baselines[target], experiment.split_name
        )
        suffix = "" if len(found) == 1 else f"-{target}"
        for part in list(parts)[-1:]:
            guess, truth = (values * experiment.factors[target] for values in predictions[part])
            title = f"{name} on {recipe.dataset}: {sizes[part]:,} {part} structures"
            draw_parity(folder.path / f"parity{suffix}.png", guess, truth, target, entry.unit, title)
        draw_learning(
            folder.path / f"learning{suffix}.png", rows, entry, experiment.units[target], f"{name} on {recipe.dataset}"
        )
        results.append(entry)
    folder.write_json(
        "results.json",
        {
            "dataset": recipe.dataset,
            "split": experiment.split_name,
            "sizes": sizes,
            "epochs": checkpoints.epoch,
            "best_epoch": checkpoints.best["epoch"],
            "parameters": sum(parameter.numel() for parameter in experiment.model.parameters()),
            "training_seconds": round(checkpoints.seconds, 1),
            **({} if checkpoints.budget is None else {"budget_seconds": round(checkpoints.budget.used, 2)}),
            "targets": [entry.to_dict() for entry in results],
        },
    )
    checkpoints.remove_state()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on the machine, on workers and on its products."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def _algorithms(recipe: Recipe, file: str, processes: ProcessGroup) -> Iterator[None]:
    """With as many threads, and as deterministic, as the recipe says; afterwards as before."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        elif processes.local_size > 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, threads // processes.local_size))
        if recipe.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
            torch.use_deterministic_algorithms(True)
        yield
    except RuntimeError as error:
        if recipe.deterministic and "deterministic" in str(error):
            raise RecipeError(f"{file}: deterministic: This device cannot do it: {error}") from error
        raise
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
