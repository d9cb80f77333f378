"""How long training waits for its batches, for ``data.py``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch_geometric.data import Batch

from geoeq.models import Model
from geoeq.resources import share
from geoeq.training.build import build_model
from geoeq.training.parsing import read_recipe

__all__ = ["Waiting", "network", "waiting"]


@dataclass(frozen=True)
class Waiting:
    """What some steps of training took.

    Attributes:
        steps: how many.
        step: milliseconds of a step, with its batch.
        wait: milliseconds of that until the batch was there.
    """

    steps: int
    step: float
    wait: float

    @property
    def share(self) -> float:
        """Of the time, in percent."""
        return 100 * self.wait / self.step


def network(recipe: str, target: str | None = None) -> Model:
    """The network of a recipe that comes with geoeq."""
    task, _, name = recipe.partition("/")
    settings = [] if target is None else [f"target={target}"]
    return build_model(read_recipe(share("recipes") / task / f"{name}.yaml", settings))


def waiting(model: Model, batches: Iterable[Batch], targets: list[str], seconds: float) -> Waiting:
    """Train on ``batches`` for some seconds, after two steps that are not counted."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    waited, start, steps = 0.0, 0.0, -2
    iterator = iter(batches)
    while steps <= 0 or time.perf_counter() - start < seconds:
        if steps == 0:
            waited, start = 0.0, time.perf_counter()
        before = time.perf_counter()
        batch = next(iterator, None)
        if batch is None:
            break
        waited += time.perf_counter() - before
        outputs = model(batch)
        loss = torch.stack([(outputs[name] - batch[name]).abs().mean() for name in targets]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    total = time.perf_counter() - start
    return Waiting(steps, 1000 * total / max(steps, 1), 1000 * waited / max(steps, 1))
