"""Time budgets: train until a given training time is spent, instead of for a number of epochs."""

from __future__ import annotations

import copy
import math
import re
import time

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch_geometric.data import Batch

from geoeq.errors import RecipeError
from geoeq.models import Model

__all__ = ["Budget", "BudgetClock", "parse_budget"]

_UNITS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

#: Largest number of validations of a run with a budget, so that a fast network is not interrupted all the time.
VALIDATIONS = 50

#: Epochs between validations to switch them off.
_NEVER = 2**62


def parse_budget(text: str) -> float:
    """Return the seconds of a time such as ``90s``, ``5min`` or ``1h``.

    Raises:
        RecipeError: the text has another form, or the time is not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", text.strip())
    seconds = float(match[1]) * _UNITS.get(match[2], math.nan) if match else math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise RecipeError(f"A budget is a time above 0 with its unit, as in 90s, 5min or 1h, not '{text}'.")
    return seconds


class Budget:
    """Stopwatch with a limit; it runs during training steps only.

    Args:
        seconds: training time to spend.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._before = 0.0
        self._since: float | None = None

    @property
    def used(self) -> float:
        """Seconds spent so far."""
        return self._before + (0.0 if self._since is None else time.monotonic() - self._since)

    @property
    def fraction(self) -> float:
        """Fraction of the budget that is spent, at most 1."""
        return min(1.0, self.used / self.seconds)

    def run(self) -> None:
        """Start the stopwatch, if it is stopped."""
        self._since = time.monotonic() if self._since is None else self._since

    def stop(self) -> None:
        """Stop the stopwatch."""
        self.restore(self.used)

    def restore(self, used: float) -> None:
        """Stop the stopwatch, and set the seconds spent."""
        self._before, self._since = used, None


class BudgetClock(Callback):
    """Callback that times the training steps, ends the run when the budget is spent, and schedules validations.

    Data preparation and a first step on a copy of the model are not timed, nor are validations and saved states: the
    result should not depend on how often they happen. A validation takes place at the end of an epoch if a fiftieth of
    the budget was spent since the last one, and when the budget is spent.

    Args:
        budget: stopwatch of the run.
        model: model in training.
        batch: batch of the first step.
    """

    def __init__(self, budget: Budget, model: Model, batch: Batch) -> None:
        super().__init__()
        self._budget, self._model, self._batch = budget, model, batch
        self._agreed = self._validated = 0.0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Run a step with a copy of the model, so that tables and compiled code are made before the clock starts."""
        model = copy.deepcopy(self._model).train()
        outputs = model(self._batch.to(pl_module.device))
        torch.stack([value.float().sum() for value in outputs.values()]).sum().backward()
        self._agreed = self._validated = self._budget.used

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the stopwatch."""
        self._budget.run()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """End the run when the budget is spent; decide whether to validate after this epoch."""
        self._agreed = trainer.strategy.broadcast(self._budget.used)  # all processes use the clock of the main one
        used, seconds = self._agreed, self._budget.seconds
        if used >= seconds:
            trainer.should_stop = True
        due = used >= seconds or used - self._validated >= seconds / VALIDATIONS
        trainer.check_val_every_n_epoch = 1 if due else _NEVER

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the stopwatch."""
        self._budget.stop()
        self._validated = self._agreed

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the stopwatch."""
        self._budget.stop()
