"""How long training waits for its batches, for ``data.py``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Batch

from geoeq.data.dataset import Dataset
from geoeq.data.loader import BatchView, make_loader
from geoeq.data.sampler import BatchSampler, Limit
from geoeq.models import Model
from geoeq.resources import share
from geoeq.training.parsing import read_recipe
from geoeq.training.setup import build_model

__all__ = ["Waiting", "network", "time_waiting", "unkept", "waiting", "workers_label"]


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


def workers_label(kind: str, workers: int) -> str:
    """What a row is called."""
    return f"{kind}, {('no workers', '1 worker', '2 workers')[workers]}"


def unkept(
    dataset: Dataset, places: np.ndarray, size: int, cutoff: float, targets: list[str], **how: int | bool
) -> Any:
    """The loader of a large data set, whose edges are found batch by batch; ``how``: workers, ahead."""
    view = BatchView(Dataset.open(dataset.card, dataset.folder), cutoff=cutoff, targets=targets)
    return make_loader(view, BatchSampler(places, Limit(size), shuffle=True), **how)


def time_waiting(molecules: Dataset, periodic: Dataset, budget: float) -> list[dict[str, Any]]:
    """EGNN in training: molecules as for QM9 and QM7, slabs as for S2EF (edges kept, and found batch by batch)."""
    s2ef, names = "oc20/s2ef-egnn-quick", ["energy", "forces"]
    qm9, qm7, quick = network("qm9/egnn"), network("qm7/egnn", "gap"), network(s2ef)
    cutoff = float(quick.cutoff or 0)
    places = {id(dataset): np.resize(np.arange(len(dataset)), 100_000) for dataset in (molecules, periodic)}

    def kept(dataset: Dataset, size: int, cutoff: float | None, names: list[str]) -> Any:
        options: dict[str, Any] = {"shuffle": True, "cutoff": cutoff, "targets": names, "ahead": True}
        return dataset.loader(places[id(dataset)], size, **options)

    def found(**how: int | bool) -> Any:
        return unkept(periodic, places[id(periodic)], 8, cutoff, names, **how)

    cases = [
        ("qm9/egnn", "batches of 96, all atoms connected", qm9, kept(molecules, 96, None, ["gap"])),
        ("qm7/egnn", "batches of 64, edges kept", qm7, kept(molecules, 64, qm7.cutoff, ["gap"])),
        (s2ef, "batches of 8, edges kept", quick, kept(periodic, 8, cutoff, names)),
        (s2ef, "batches of 8, edges found for each", quick, found(ahead=True)),
        (s2ef, "batches of 8, edges found for each, not ahead", quick, found()),
        (s2ef, workers_label("batches of 8, edges found for each", 1), quick, found(workers=1)),
    ]
    rows = []
    for recipe, what, model, loader in cases:
        targets = [name for name in loader.dataset.targets if name in model.fields]
        measured = waiting(model, loader, targets, budget)
        rows.append({"recipe": f"recipes/{recipe}.yaml", "what": what, **asdict(measured), "share": measured.share})
    return rows
