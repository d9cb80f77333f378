"""Progress of a run: a bar on a terminal, else a line per epoch, with errors in the units of the report."""

from __future__ import annotations

import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch_geometric.data import Batch

from geoeq.training.budget import Budget
from geoeq.training.evaluation.metrics import headline
from geoeq.units import format_number

__all__ = ["ProgressReport"]


class ProgressReport(Callback):
    """Callback that shows the progress on a console.

    Args:
        console: output console.
        epochs: number of epochs of the whole run.
        units: target -> unit of its headline metric; empty if it has none.
        every: minimum time in seconds between lines, without a terminal.
        budget: time budget of the run; None if the run ends after its epochs.
        batches: number of batches in an epoch, the steps of the bar.
    """

    def __init__(
        self,
        console: Console,
        epochs: int,
        units: dict[str, str],
        every: float = 2.0,
        budget: Budget | None = None,
        batches: int = 1,
    ) -> None:
        super().__init__()
        self._budget = budget
        self._console, self._epochs, self._units, self._every = console, epochs, units, every
        self._batches = batches
        self._last = -every
        self._bar: Progress | None = None
        self._task: Any = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar."""
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=16),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[news]}", markup=False),
                console=self._console,
                transient=True,
            )
            total: float = self._epochs * self._batches
            done = trainer.current_epoch * self._batches
            if self._budget is not None:
                total, done = self._budget.seconds, int(self._budget.used)
            self._task = self._bar.add_task("", total=total, completed=done, epoch=self._count(1), news="")
            self._bar.start()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Advance the bar."""
        if self._bar is not None:
            advance, completed = (1, None) if self._budget is None else (None, self._budget.used)
            epoch = self._count(trainer.current_epoch + 1)
            self._bar.update(self._task, advance=advance, completed=completed, epoch=epoch)

    def _count(self, epoch: int) -> str:
        return f"{epoch}/{self._epochs}" if self._budget is None else str(epoch)

    def epoch_done(self, epoch: int, measured: dict[str, float]) -> None:
        """Show the errors on the bar, or as a line if there is no bar and enough time has passed."""
        parts = []
        for name, unit in self._units.items():
            metric = headline(name)
            values = [
                f"{stage} {format_number(measured[label])}"
                for stage in ("train", "valid")
                if (label := f"{stage} {metric} {name}") in measured
            ]
            label = metric if len(self._units) == 1 else f"{name} {metric}"
            parts.append(f"{label} {', '.join(values)} {unit}".rstrip())
        news = "; ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, news=news)
        elif time.monotonic() - self._last >= self._every or self._is_last(epoch):
            self._last = time.monotonic()
            spent = "" if self._budget is None else f" ({self._budget.used:.0f} of {self._budget.seconds:.0f} s)"
            self._console.print(f"epoch {self._count(epoch)}{spent}  {news}", highlight=False, soft_wrap=True)

    def _is_last(self, epoch: int) -> bool:
        return epoch == self._epochs if self._budget is None else self._budget.fraction == 1.0

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Close the bar before the error is printed."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
