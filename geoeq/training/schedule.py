"""The learning rate: warm-up, then constant, cosine, or a fall at each plateau."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from geoeq.training.recipe import ScheduleSettings

if TYPE_CHECKING:
    from geoeq.training.budget import Budget

__all__ = ["Schedule"]

#: The part of a budget after which no warm-up lasts.
LONGEST_WARMUP = 0.2


class Schedule:
    """The factor of the learning rate at each step.

    All but the plateaus is a function of the number of the step alone, so that a resumed run needs three numbers. On a
    budget the part of it that is spent takes the place of the step, but for the warm-up, which keeps its steps: they
    are for the optimizer's sake. It ends with a fifth of the budget at the latest.

    Args:
        settings: as in the recipe.
        steps_per_epoch: optimizer steps in an epoch.
        total_steps: optimizer steps of the whole run, where the cosine ends.
        budget: the time of the run, where that ends it.
    """

    def __init__(
        self, settings: ScheduleSettings, steps_per_epoch: int, total_steps: int, budget: Budget | None = None
    ) -> None:
        self._settings = settings
        self._warmup = settings.warmup_epochs * steps_per_epoch
        self._total, self._budget = total_steps, budget
        self._reduction, self._best, self._waited = 1.0, math.inf, 0

    def factor(self, step: int) -> float:
        """What multiplies the learning rate for step ``step``, counted from 0."""
        rise = (step + 1) / (self._warmup + 1) if step < self._warmup else 1.0
        if self._budget is not None:
            spent = self._budget.fraction
            return min(1.0, max(rise, spent / LONGEST_WARMUP)) * self._shape(spent)
        if rise < 1.0:
            return rise
        return self._shape(min(1.0, (step - self._warmup) / max(1.0, self._total - self._warmup)))

    def _shape(self, progress: float) -> float:
        """The factor after the warm-up, at a part of the way to the end."""
        settings = self._settings
        if settings.name == "cosine":
            return settings.minimum + (1 - settings.minimum) * 0.5 * (1 + math.cos(math.pi * progress))
        return max(settings.minimum, self._reduction)

    def validated(self, loss: float) -> None:
        """Take note of a validation; only a plateau schedule minds it."""
        if self._settings.name != "plateau":
            return
        if loss < self._best:
            self._best, self._waited = loss, 0
            return
        self._waited += 1
        if self._waited >= self._settings.patience:
            self._reduction, self._waited = self._reduction * self._settings.factor, 0

    def state(self) -> dict[str, float]:
        """What cannot be computed from the number of the step."""
        return {"reduction": self._reduction, "best": self._best, "waited": self._waited}

    def restore(self, state: dict[str, float]) -> None:
        """Continue from what ``state`` gave."""
        self._reduction, self._best, self._waited = state["reduction"], state["best"], int(state["waited"])
