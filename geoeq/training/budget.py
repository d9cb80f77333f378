"""A training that ends when its time is spent, not after so many epochs."""

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

#: A run on a budget is validated this often at the most, so that a quick network is not always interrupted.
VALIDATIONS = 50

#: Epochs between validations, where there is none.
_NEVER = 2**62


def parse_budget(text: str) -> float:
    """Seconds in ``90s``, ``5min`` or ``1h``.

    Raises:
        RecipeError: it is not written like that, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)", text.strip())
    seconds = float(match[1]) * _UNITS.get(match[2], math.nan) if match else math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise RecipeError(f"A budget is a time above 0 with its unit, as in 90s, 5min or 1h, not '{text}'.")
    return seconds


class Budget:
    """A stopwatch with an end. It runs while training steps are done, and stands still for the rest.

    Args:
        seconds: to spend.
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
        """The part that is spent, 1 at the most."""
        return min(1.0, self.used / self.seconds)

    def run(self) -> None:
        """Let the watch run."""
        self._since = time.monotonic() if self._since is None else self._since

    def stop(self) -> None:
        """Let the watch stand still."""
        self.restore(self.used)

    def restore(self, used: float) -> None:
        """Set what is spent; the watch stands still."""
        self._before, self._since = used, None


class BudgetClock(Callback):
    """Runs the watch in training, ends the run when the budget is spent, and decides when to validate.

    Data are prepared and a first step is tried before the watch runs. It stands still while a run is validated and
    while its state is written: how often one looks is no property of a network. There is a validation at the end of an
    epoch where a fiftieth of the budget has gone since the last one, and one when the budget is spent.

    Args:
        budget: the stopwatch of the run.
        model: the model in training.
        batch: batch of the warm-up step.
    """

    def __init__(self, budget: Budget, model: Model, batch: Batch) -> None:
        super().__init__()
        self._budget, self._model, self._batch = budget, model, batch
        self._agreed = self._validated = 0.0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Try a step with a copy of the model: tables and compiled code that are made once cost no training time."""
        model = copy.deepcopy(self._model).train()
        outputs = model(self._batch.to(pl_module.device))
        torch.stack([value.float().sum() for value in outputs.values()]).sum().backward()
        self._agreed = self._validated = self._budget.used

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Let the watch run."""
        self._budget.run()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """End the run when the budget is spent; say whether there is a validation after this batch."""
        self._agreed = trainer.strategy.broadcast(self._budget.used)  # the clock of one process counts for all
        used, seconds = self._agreed, self._budget.seconds
        if used >= seconds:
            trainer.should_stop = True
        due = used >= seconds or used - self._validated >= seconds / VALIDATIONS
        trainer.check_val_every_n_epoch = 1 if due else _NEVER

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Let the watch stand still."""
        self._budget.stop()
        self._validated = self._agreed

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Let the watch stand still."""
        self._budget.stop()
