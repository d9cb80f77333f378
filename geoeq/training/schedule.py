"""Learning-rate schedules: warm-up, then constant, cosine, or reduction on plateaus."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from geoeq.training.recipe import ScheduleSettings

if TYPE_CHECKING:
    from geoeq.training.budget import Budget

__all__ = ["Schedule"]

#: Fraction of a budget after which the warm-up is over.
LONGEST_WARMUP = 0.2


class Schedule:
    """Factor of the learning rate at each step.

    Except for plateaus it is a function of the step number, so a resumed run needs only three more numbers. With a
    budget, the schedule follows the spent fraction of the budget instead of the step number. Only the warm-up still
    counts steps, for the optimizer's sake, and ends with a fifth of the budget at the latest.

    Args:
        settings: section ``schedule`` of the recipe.
        steps_per_epoch: number of optimizer steps in an epoch.
        total_steps: number of optimizer steps of the whole run, at which the cosine ends.
        budget: time budget of the run; None if the run ends after its epochs.
    """

    def __init__(
        self, settings: ScheduleSettings, steps_per_epoch: int, total_steps: int, budget: Budget | None = None
    ) -> None:
        self._settings = settings
        self._warmup = settings.warmup_epochs * steps_per_epoch
        self._total, self._budget = total_steps, budget
        self._reduction, self._best, self._waited = 1.0, math.inf, 0

    def factor(self, step: int) -> float:
        """Return the factor of the learning rate for step ``step``, counted from 0."""
        rise = (step + 1) / (self._warmup + 1) if step < self._warmup else 1.0
        if self._budget is not None:
            spent = self._budget.fraction
            return min(1.0, max(rise, spent / LONGEST_WARMUP)) * self._shape(spent)
        if rise < 1.0:
            return rise
        return self._shape(min(1.0, (step - self._warmup) / max(1.0, self._total - self._warmup)))

    def _shape(self, progress: float) -> float:
        """Return the factor after the warm-up, at a fraction ``progress`` of the way to the end."""
        settings = self._settings
        if settings.name == "cosine":
            return settings.minimum + (1 - settings.minimum) * 0.5 * (1 + math.cos(math.pi * progress))
        return max(settings.minimum, self._reduction)

    def validated(self, loss: float) -> None:
        """Record the loss of a validation; only a plateau schedule uses it."""
        if self._settings.name != "plateau":
            return
        if loss < self._best:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited >= self._settings.patience:
            self._reduction, self._waited = self._reduction * self._settings.factor, 0

    def state(self) -> dict[str, float]:
        """Return the numbers that do not follow from the step number."""
        return {"reduction": self._reduction, "best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from the numbers of ``state``."""
        self._reduction, self._best, self._waited = state["reduction"], state["best"], int(state["waited"])
