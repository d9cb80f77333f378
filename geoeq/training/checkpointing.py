"""Checkpoint callback: logs each epoch, keeps the best weights and saves the state for resuming."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as distributed_state
from torch_geometric.data import Batch

from geoeq.errors import RecipeError
from geoeq.files import load_state, save_state
from geoeq.training.budget import Budget
from geoeq.training.evaluation.metrics import headline
from geoeq.training.log import Log
from geoeq.training.module import TrainingModule, auxiliary_label
from geoeq.training.recipe import Recipe

__all__ = ["CheckpointCallback"]


class CheckpointCallback(Checkpoint):
    """Callback that writes the log, the best weights and the state of a run.

    A run can be killed at any moment: at the end of an epoch the row of the log is written before the state, and rows
    after the last state are dropped when the run is resumed.

    Args:
        recipe: settings of the run.
        folder: folder of the run.
        units: target -> unit of its headline metric, for the column names; empty if it has none.
        save_best: function called with the weights of each new best validation.
        report: function called at the end of an epoch with its number and results.
        budget: time budget of the run; None if the run ends after its epochs.
        writes: whether this process writes the files (one process per run does).

    Attributes:
        best: epoch, loss and weights of the best validation.
        epoch: number of epochs done.
        batches: number of batches per process done in the next epoch, when the run was resumed.
        seconds: training time without interruptions.
        finished: whether all epochs are done, the budget is spent, or training stopped early.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        units: dict[str, str],
        save_best: Callable[[dict[str, Tensor]], None],
        report: Callable[[int, dict[str, float]], None],
        budget: Budget | None = None,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self.budget = budget
        self.best: dict[str, Any] = {"epoch": 0, "loss": math.inf, "weights": None}
        self.finished = False
        self._recipe = recipe
        self._path = folder / "state.pt"
        self._log_path = folder / "log.csv"
        self._save_best, self._report = save_best, report
        self._writes = writes
        self._log: Log | None = None
        self._stale = 0  # number of validations since the best one
        self.epoch, self.batches, self.seconds = 0, 0, 0.0
        self._measures = [
            label
            for stage in ("train", "valid")
            for label in (f"{stage} loss", *(_label(stage, name) for name in units))
        ] + [f"train {auxiliary_label(name)}" for name in recipe.loss.auxiliary]
        self._heads = {_label(stage, name): unit for stage in ("train", "valid") for name, unit in units.items()}
        self._state = load_state(self._path) if self._path.is_file() else None
        if self._state is not None:
            self.best, self._stale = self._state["best"], self._state["stale"]
            self.epoch, self.batches = self._state["epoch"], self._state["batches"]
            self.seconds = self._state["seconds"]
            more = budget is None and not self._is_stale and self._state["epoch"] < recipe.total_epochs
            self.finished = self._state["finished"] and not (more and not self._has_all_steps(self._state["step"]))
            if budget is not None:
                budget.restore(self._state["budget"])

    def column(self, label: str) -> str:
        """Return the column name of a result, with its unit."""
        unit = self._heads.get(label)
        return f"{label} [{unit}]" if unit else label

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore the state of an interrupted run."""
        state = self._state
        if state is not None and isinstance(pl_module, TrainingModule):
            restore_weights(trainer, pl_module, state)
            pl_module.schedule.restore(state["schedule"])
            pl_module.step = state["step"]
            if state["tally"] is not None and self._writes:  # sums over all processes, continued by one
                pl_module.sums["train"].reset(state["tally"])
            done = dict.fromkeys(("ready", "started", "processed", "completed"), self.epoch)
            trainer.fit_loop.epoch_progress.current.load_state_dict(done)
        times = ["seconds"] if self.budget is None else ["seconds", "budget seconds"]
        extra = pl_module.model.extra_metrics() if isinstance(pl_module, TrainingModule) else {}
        columns = ["epoch", "step", "lr", *(self.column(label) for label in self._measures), *extra, *times]
        if self._writes:
            self._log = Log(self._log_path, columns, self.epoch, self._recipe.log)
        self._started = time.monotonic() - self.seconds
        self._first = self.epoch

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Save the state within an epoch, after the same number of batches in each process."""
        every = (self._recipe.save_every or 0) * self._recipe.accumulate
        if every and batch_idx and batch_idx % every == 0 and isinstance(pl_module, TrainingModule):
            first = self.batches if trainer.current_epoch == self._first else 0
            self.seconds = time.monotonic() - self._started
            with self._clock_stopped():
                self._save(trainer, pl_module, trainer.current_epoch, first + batch_idx)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the row of the log, keep the best weights, decide whether to stop, and save the state."""
        if not isinstance(pl_module, TrainingModule):
            return
        self.epoch = epoch = trainer.current_epoch + 1
        measured = pl_module.measured
        if not math.isfinite(measured["train loss"]):
            raise RecipeError(
                f"The loss became NaN or infinite in epoch {epoch}. Lower optimizer.lr, set schedule.warmup_epochs or "
                "gradient_clip, and restart with --again."
            )
        if "valid loss" in measured:
            self._validated(trainer, pl_module, epoch, measured["valid loss"])
        if self._is_stale:
            trainer.should_stop = True
        self.finished = trainer.should_stop or (self.budget is None and epoch >= self._recipe.total_epochs)
        if self.finished and self.best["weights"] is None:  # there was no validation
            self.best = {"epoch": epoch, "loss": math.nan, "weights": best_weights(trainer, pl_module)}
        self.seconds = time.monotonic() - self._started
        row = {"epoch": epoch, "step": pl_module.step, "lr": trainer.optimizers[0].param_groups[0]["lr"]}
        row |= {self.column(label): float(f"{value:.7g}") for label, value in measured.items()}
        used = {} if self.budget is None else {"budget seconds": round(self.budget.used, 2)}
        if self._log is not None:
            self._log.append({**row, "seconds": round(self.seconds, 2), **used})
        self._report(epoch, measured)
        self._save(trainer, pl_module, epoch, 0)

    @property
    def _is_stale(self) -> bool:
        limit = self._recipe.early_stop
        return limit is not None and self._stale >= limit

    def _has_all_steps(self, step: int) -> bool:
        return self._recipe.max_steps is not None and step >= self._recipe.max_steps

    def _save(self, trainer: lightning.Trainer, module: TrainingModule, epoch: int, batches: int) -> None:
        """Save the state after ``epoch`` epochs and ``batches`` batches of the next one; all processes call this."""
        sums = module.sums["train"].reduced(module.add_up, module.device) if batches else None
        state = {
            "epoch": epoch,
            "batches": batches,
            "tally": sums,
            "step": module.step,
            **weights_and_optimizer(trainer, module),
            "schedule": module.schedule.state(),
            "best": self.best,
            "stale": self._stale,
            "seconds": self.seconds,
            "budget": None if self.budget is None else self.budget.used,
            "finished": self.finished,
        }
        if self._writes:
            save_state(self._path, state)

    @contextlib.contextmanager
    def _clock_stopped(self) -> Iterator[None]:
        """Stop the clock of the budget within the block."""
        if self.budget is not None:
            self.budget.stop()
        yield
        if self.budget is not None:
            self.budget.run()

    def _validated(self, trainer: lightning.Trainer, module: TrainingModule, epoch: int, loss: float) -> None:
        module.schedule.validated(loss)
        if loss < self.best["loss"]:
            self.best = {"epoch": epoch, "loss": loss, "weights": best_weights(trainer, module)}
            self._stale = 0
            if self._writes:
                self._save_best(self.best["weights"])
        else:
            self._stale += 1

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    def remove_state(self) -> None:
        """Delete the state, without which the run can be neither resumed nor extended."""
        self._path.unlink(missing_ok=True)


def _label(stage: str, target: str) -> str:
    return f"{stage} {headline(target)} {target}"


_GATHERED = distributed_state.StateDictOptions(full_state_dict=True, cpu_offload=True)


def best_weights(trainer: lightning.Trainer, module: TrainingModule) -> dict[str, Tensor]:
    """Return a copy on the CPU of the weights to save; with FSDP only the main process gets it, and all call this."""
    weights = _weights(trainer, module.evaluated)
    return {name: value.detach().cpu().clone() for name, value in weights.items()}


def weights_and_optimizer(trainer: lightning.Trainer, module: TrainingModule) -> dict[str, Any]:
    """Return the entries "model", "average" and "optimizer" of a state; all processes call this."""
    average, optimizer = module.average, trainer.optimizers[0]
    return {
        "model": _weights(trainer, module.model),
        "average": None if average is None else _weights(trainer, average),
        "optimizer": distributed_state.get_optimizer_state_dict(module.model, optimizer, options=_GATHERED)
        if _is_sharded(trainer)
        else optimizer.state_dict(),
    }


def restore_weights(trainer: lightning.Trainer, module: TrainingModule, state: dict[str, Any]) -> None:
    """Restore the entries of ``weights_and_optimizer``, which every process has read."""
    average, optimizer = module.average, trainer.optimizers[0]
    _restore(trainer, module.model, state["model"])
    if average is not None:
        _restore(trainer, average, state["average"])
    if _is_sharded(trainer):
        distributed_state.set_optimizer_state_dict(module.model, optimizer, state["optimizer"], options=_GATHERED)
    else:
        optimizer.load_state_dict(state["optimizer"])


def _weights(trainer: lightning.Trainer, model: nn.Module) -> dict[str, Tensor]:
    if not _is_sharded(trainer):
        return model.state_dict()
    weights = distributed_state.get_model_state_dict(model, options=_GATHERED)
    return {name: value for name, value in weights.items() if isinstance(value, Tensor)}


def _restore(trainer: lightning.Trainer, model: nn.Module, weights: dict[str, Any]) -> None:
    if _is_sharded(trainer):
        distributed_state.set_model_state_dict(model, weights, options=_GATHERED)
    else:
        model.load_state_dict(weights)


def _is_sharded(trainer: lightning.Trainer) -> bool:
    return isinstance(trainer.strategy, ModelParallelStrategy)
