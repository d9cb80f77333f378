"""Run the training loop: a Lightning Trainer with its callbacks."""

from __future__ import annotations

import copy
import signal
import threading
from typing import Any

import lightning
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import strategies
from lightning.pytorch.plugins import DoublePrecision
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader
from torch_geometric.data import Batch

from geoeq.environment import describe_environment
from geoeq.errors import RecipeError
from geoeq.files import write_json
from geoeq.models.checkpoint import save_checkpoint
from geoeq.training.budget import Budget, BudgetClock
from geoeq.training.checkpointing import CheckpointCallback
from geoeq.training.distributed import ProcessGroup
from geoeq.training.folder import RunFolder
from geoeq.training.loaders import Epochs
from geoeq.training.module import TrainingModule
from geoeq.training.progress import ProgressReport
from geoeq.training.recipe import Recipe
from geoeq.training.schedule import Schedule
from geoeq.training.setup import Experiment

__all__ = ["fit"]


def fit(
    experiment: Experiment,
    folder: RunFolder,
    console: Console,
    processes: ProcessGroup,
    batches: Epochs,
    validation_batches: DataLoader[Batch] | None,
) -> CheckpointCallback:
    """Train a copy of the model, or resume; the returned callback holds the weights of the best validation.

    Args:
        experiment: model, data and settings.
        folder: folder of the run; only the main process writes into it.
        console: output of the progress.
        processes: the processes of the run, each of which calls this function.
        batches: training batches of this process.
        validation_batches: validation batches of this process.
    """
    recipe, steps = experiment.recipe, batches.sampler.steps(0)
    total_steps = min(recipe.total_epochs * steps, recipe.max_steps or 2**62)
    budget = None if recipe.budget is None else Budget(recipe.budget)
    schedule = Schedule(recipe.schedule, steps, total_steps, budget)
    meta = experiment.meta()
    module = TrainingModule(copy.deepcopy(experiment.model), recipe, experiment.loss(), schedule, experiment.factors)

    def save_best(weights: dict[str, Tensor]) -> None:
        experiment.model.load_state_dict(weights)
        save_checkpoint(experiment.model, folder.path / "checkpoint", meta)

    units = experiment.units
    progress = ProgressReport(console, recipe.total_epochs, units, budget=budget, batches=batches.sampler.batches(0))
    checkpoints = CheckpointCallback(
        recipe, folder.path, units, save_best, progress.epoch_done, budget, writes=processes.is_main
    )
    batches.sampler.resume(checkpoints.epoch, checkpoints.batches)
    clock = [] if budget is None else [BudgetClock(budget, module.model, next(iter(validation_batches or batches)))]
    if checkpoints.epoch or checkpoints.batches:
        more = f" and {checkpoints.batches} batches" if checkpoints.batches else ""
        console.print(f"Resuming after epoch {checkpoints.epoch}{more}.", highlight=False)
    # Without a launcher, SLURM's variables are ignored. FSDP supports "64-true" only as a plugin.
    plugins: list[Any] = [processes.environment or LightningEnvironment()]
    precision: Any = {"32": "32-true", "64": None}.get(recipe.precision, recipe.precision)
    if precision is None:
        plugins.append(DoublePrecision())
    trainer = lightning.Trainer(
        accelerator="gpu" if experiment.device.type == "cuda" else "cpu",
        devices=recipe.devices,
        num_nodes=recipe.num_nodes,
        strategy=_strategy(recipe),
        plugins=plugins,
        accumulate_grad_batches=recipe.accumulate,
        precision=precision,
        max_epochs=recipe.total_epochs if budget is None else -1,
        check_val_every_n_epoch=min(recipe.validate_every, recipe.total_epochs),
        gradient_clip_val=recipe.gradient_clip,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        use_distributed_sampler=False,
        default_root_dir=folder.path,
        callbacks=[*clock, progress, checkpoints],
    )
    if not checkpoints.finished:
        if processes.is_main:
            write_json(folder.path / "environment.json", describe_environment())
        try:
            trainer.fit(module, batches, validation_batches)
        except SystemExit as error:  # Lightning turns Ctrl-C into an exit, and then ignores SIGINT
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from error
    return checkpoints


def _strategy(recipe: Recipe) -> str | strategies.Strategy:
    """Return Lightning's strategy for the devices of a recipe."""
    processes = recipe.devices * recipe.num_nodes
    if recipe.strategy == "fsdp":
        if processes == 1:
            raise RecipeError("strategy: fsdp shards the weights over several devices. Use --devices N, or ddp.")
        return strategies.ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1)
    if processes == 1:
        return "auto"
    # A target may not need all parameters of a network; all processes start with the same weights.
    return strategies.DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
