"""Run a recipe: train, evaluate, and write the checkpoint, results and plots."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from geoeq.data_doctor import diagnose
from geoeq.errors import DataError, GeoeqError, RecipeError
from geoeq.files import read_log, write_json
from geoeq.models.checkpoint import save_checkpoint
from geoeq.resources import import_extra
from geoeq.training.distributed import ProcessGroup, join_processes
from geoeq.training.evaluation.results import (
    TargetResults,
    compare,
    note_ignored_charge,
    predict_parts,
    print_results,
)
from geoeq.training.folder import RunFolder
from geoeq.training.loaders import Epochs, train_loader, validation_loader
from geoeq.training.memory import is_out_of_memory
from geoeq.training.parsing import error_context, recipe_origin
from geoeq.training.plan import out_of_memory
from geoeq.training.recipe import Recipe
from geoeq.training.setup import Experiment, build_experiment
from geoeq.typed import Origin
from geoeq.units import counted

if TYPE_CHECKING:
    from rich.console import Console

    from geoeq.training.checkpointing import CheckpointCallback

__all__ = ["train"]


def train(
    recipe: Recipe, file: str | Path, console: Console, *, again: bool = False, settings: Sequence[str] = ()
) -> list[TargetResults]:
    """Train a model according to a recipe, or resume an interrupted run of the same recipe.

    Afterwards the run folder contains recipe.yaml (all settings, including defaults), environment.json, log.csv,
    checkpoint/, results.json, parity.png and learning.png (one plot of each kind per target).

    Args:
        recipe: settings of the run.
        file: file of the recipe; it names the run folder, and errors refer to it.
        console: output of the progress and the table.
        again: delete an earlier run in the folder.
        settings: overrides of the command line that are in the recipe; errors in them refer to it instead of the file.

    Raises:
        RecipeError: a setting cannot work; the message names the file and the section.
        MissingExtraError: the extra "train" is not installed.
    """
    file = Path(file)
    for module in ("lightning", "rich", "matplotlib"):
        import_extra(module, "train")

    folder, origin = RunFolder(recipe.folder(file)), recipe_origin(file, settings)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        with error_context(file.name):
            processes = stack.enter_context(join_processes(recipe))
        if processes.is_main:
            if (again and folder.has_run) or not folder.accepts(recipe):
                build_experiment(recipe, origin)  # a mistake in the recipe is the first thing to report
            with error_context(file.name):
                folder.check(recipe, again=again)
        stack.enter_context(_algorithms(recipe, file.name, processes))
        if not processes.is_main:
            return _run_worker(recipe, origin, folder, processes)
        if folder.results() is None:
            _run_main(recipe, origin, folder, console, processes)
        else:
            processes.barrier()
            console.print(
                f"The run in '{folder.path}' is finished; --again deletes it and trains from scratch.",
                highlight=False,
                soft_wrap=True,
            )
    summary = folder.results() or {}
    results = [TargetResults.from_dict(entry) for entry in summary["targets"]]
    for entry in results:
        print_results(console, entry, summary["dataset"], summary["sizes"])
    best = f"the best of {counted(summary['epochs'], 'epoch')} was epoch {summary['best_epoch']}"
    if not summary["sizes"]["valid"]:
        best = f"the weights are those of the last of {counted(summary['epochs'], 'epoch')}"
    console.print(
        f"Training took {summary['training_seconds']:.0f} s; {best}. Model, log and plots are in '{folder.path}'.",
        highlight=False,
        soft_wrap=True,
    )
    return results


def _run_main(recipe: Recipe, origin: Origin, folder: RunFolder, console: Console, processes: ProcessGroup) -> None:
    """Run the main process of an unfinished run."""
    experiment = build_experiment(recipe, origin)
    if recipe.doctor:
        with error_context(origin, "dataset"):
            _check_data(experiment, console)
    folder.start(recipe)
    _announce(console, experiment, folder.path, processes)
    with error_context(origin, next(iter(recipe.batch_limit))):
        loaders = train_loader(experiment, processes), validation_loader(experiment, processes)
    processes.barrier()  # the other processes find everything prepared
    _finish(experiment, folder, _fit(experiment, folder, console, processes, *loaders))


def _run_worker(recipe: Recipe, origin: Origin, folder: RunFolder, processes: ProcessGroup) -> list[TargetResults]:
    """Run a process other than the main one: it computes, but writes and prints nothing."""
    from rich.console import Console

    processes.barrier()
    if folder.results() is None:
        experiment = build_experiment(recipe, origin)
        loaders = train_loader(experiment, processes), validation_loader(experiment, processes)
        _fit(experiment, folder, Console(quiet=True), processes, *loaders)
    return []


def _fit(
    experiment: Experiment,
    folder: RunFolder,
    console: Console,
    processes: ProcessGroup,
    batches: Epochs,
    validation_batches: DataLoader[Batch] | None,
) -> CheckpointCallback:
    """Call ``fit``, and explain an out-of-memory error (once its memory is free again) or the loss of a process.

    Raises:
        GeoeqError: memory ran out, or another process has ended.
    """
    from geoeq.training.fit import fit

    try:
        return fit(experiment, folder, console, processes, batches, validation_batches)
    except (RuntimeError, MemoryError) as error:
        if processes.is_peer_failure(error):
            raise GeoeqError(
                f"Process {processes.rank} of {processes.size} (counted from 0) lost another process, which has ended. "
                "Run the same commands again to resume from the last saved state."
            ) from error
        if not is_out_of_memory(error):
            raise
    raise out_of_memory(experiment)


def _check_data(experiment: Experiment, console: Console) -> None:
    """Run the quick form of the data doctor, and print a line for each warning.

    Raises:
        DataError: the data doctor finds an error.
    """
    cutoff = getattr(experiment.model, "cutoff", None)
    diagnosis = diagnose(experiment.dataset, split=experiment.split, targets=experiment.recipe.targets, cutoff=cutoff)
    for warning in diagnosis.of("warning"):
        console.print(f"Data: {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    errors = " ".join(str(error) for error in diagnosis.of("error"))
    if errors:
        raise DataError(
            f"{errors} Run 'geoeq data doctor {experiment.recipe.dataset}' for details, or train on these data anyway "
            "with doctor: false (--no-doctor)."
        )


def _announce(console: Console, experiment: Experiment, folder: Path, processes: ProcessGroup) -> None:
    parameters = sum(parameter.numel() for parameter in experiment.model.parameters())
    sample = " (sample)" if experiment.recipe.sample else ""
    several = f" in {processes.size} processes" if processes.size > 1 else ""
    console.print(
        f"Training {experiment.model_name} ({parameters:,} parameters) on {experiment.sizes['train']:,} structures of "
        f"{experiment.recipe.dataset}{sample}, target {', '.join(experiment.recipe.targets)}, on "
        f"{experiment.device.type}{several}, in '{folder}'.",
        highlight=False,
        soft_wrap=True,
    )
    note_ignored_charge(copy.deepcopy(experiment.model).eval(), experiment.dataset, console)
    empty = [part for part in ("valid", "test") if not experiment.sizes[part]]
    if empty:
        lost = {"valid": "the best epoch cannot be chosen", "test": "the error of the model stays unknown"}
        text = f"The split '{experiment.split_name}' has no structures for {' and '.join(empty)}: "
        text += f"{' and '.join(lost[part] for part in empty)}. Add structures, or choose another split."
        console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)
    for note in experiment.dataset.notes:
        console.print(f"{experiment.recipe.dataset}: {note}", highlight=False, markup=False, soft_wrap=True)


def _finish(experiment: Experiment, folder: RunFolder, checkpoints: CheckpointCallback) -> None:
    """Evaluate the best weights; write results and plots."""
    from geoeq.training.evaluation.training_plots import draw_learning, draw_parity

    recipe, sizes, name = experiment.recipe, experiment.sizes, experiment.model_name
    experiment.model.load_state_dict(checkpoints.best["weights"])
    save_checkpoint(experiment.model, folder.path / "checkpoint", experiment.meta())
    parts = {part: experiment.split[part] for part in ("valid", "test") if sizes[part]}
    predicted = predict_parts(experiment.model, experiment.dataset, parts, recipe.targets, device=experiment.device)
    results, rows = [], read_log(folder.path / "log.csv")
    for target, predictions in predicted.items():
        baselines = experiment.baselines[target]
        entry = compare(experiment.dataset, target, name, predictions, baselines, experiment.split_name)
        suffix = "" if len(predicted) == 1 else f"-{target}"
        for part in list(parts)[-1:]:
            prediction, truth = (values * experiment.factors[target] for values in predictions[part])
            title = f"{name} on {recipe.dataset}: {sizes[part]:,} {part} structures"
            draw_parity(folder.path / f"parity{suffix}.png", prediction, truth, target, entry.unit, title)
        title = f"{name} on {recipe.dataset}"
        draw_learning(folder.path / f"learning{suffix}.png", rows, entry, experiment.units[target], title)
        results.append(entry)
    write_json(
        folder.path / "results.json",
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
    if recipe.budget is not None:  # other runs can be extended
        checkpoints.remove_state()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's hints about hardware, workers and its products."""
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
    """Set the number of threads and deterministic algorithms as the recipe specifies; restore them afterwards."""
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
            raise RecipeError(f"{file}: deterministic: not supported on this device: {error}") from error
        raise
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
