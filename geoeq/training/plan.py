"""Estimate which batches fit into memory and how long an epoch takes, from a few measured training steps."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import Batch

from geoeq.data.sampler import BatchSampler, Share
from geoeq.errors import GeoeqError
from geoeq.resources import import_extra
from geoeq.training.memory import available_memory, give_back, is_out_of_memory, peak_memory, start_peak
from geoeq.training.parsing import recipe_origin
from geoeq.training.recipe import Recipe
from geoeq.training.schedule import Schedule
from geoeq.training.setup import Experiment, build_experiment

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Measured", "Plan", "make_plan", "out_of_memory", "print_plan"]

#: Fraction of the memory that batches may use: some are larger than others, and memory is fragmented.
_USED = 0.9

#: Largest number of sizes to measure, and seconds after which no larger size is measured.
_MOST_SIZES, _TIME_LIMIT = 6, 20.0

#: Steps per size, of which the fastest counts; fewer if they take a second.
_REPEATS = 3

#: A larger batch is measured only if it is expected to use less than this fraction of the memory.
_CAREFUL = 0.5


@dataclass(frozen=True)
class Measured:
    """Measurement of a training step.

    Attributes:
        size: size of the batch, in the unit of the recipe's batch limit.
        graphs: number of graphs in the batch.
        atoms: number of atoms in the batch.
        edges: number of edges in the batch; 0 if the model computes its own.
        memory: peak memory in bytes.
        seconds: duration in seconds.
    """

    size: int
    graphs: int
    atoms: int
    edges: int
    memory: int
    seconds: float

    @property
    def work(self) -> int:
        """Measure of the work: edges if they are known, else atoms."""
        return self.edges or self.atoms


@dataclass(frozen=True)
class Plan:
    """Measured training steps and what they predict.

    Memory and time are fitted as linear functions of the number of edges (or atoms), by least squares.

    Attributes:
        setting: batch limit of the recipe: "batch_size", "batch_atoms" or "batch_edges".
        measured: measured steps, by increasing size.
        available: available memory in bytes; None if unknown.
        biggest: size of a batch with the whole training set.
        failed: smallest size that ran out of memory; None if none did.
    """

    setting: str
    measured: tuple[Measured, ...]
    available: int | None
    biggest: int
    failed: int | None = None

    def memory(self, size: float) -> float:
        """Return the bytes that a step with a batch of this size needs."""
        return self._line("memory", size)

    def seconds(self, size: float) -> float:
        """Return the seconds that a step with a batch of this size takes."""
        return self._line("seconds", size)

    @property
    def largest(self) -> int | None:
        """Largest size that fits, with a tenth of the memory to spare; None if the steps do not allow an estimate.

        If a size ran out of memory, it is the largest measured one at most.
        """
        fitting = None if self.failed is None else self.measured[-1].size
        if self.available is None or len(self.measured) < 2:
            return fitting
        start, slope = self.memory(0), self.memory(1) - self.memory(0)
        if slope <= 0:
            return fitting
        return int(min(max((_USED * self.available - start) / slope, 0), fitting or self.biggest))

    def _line(self, name: str, size: float) -> float:
        work = np.array([step.work for step in self.measured], dtype=np.float64)
        values = np.array([getattr(step, name) for step in self.measured], dtype=np.float64)
        each = work.sum() / sum(step.size for step in self.measured)
        if len(work) < 2 or np.ptp(work) == 0:
            return float(values.mean())
        slope, start = np.polyfit(work, values, 1)
        if slope * np.ptp(work) <= 1e-6 * values.max():  # too small to measure
            return float(values.max())
        return max(float(start + slope * each * size), 0.0)


def make_plan(experiment: Experiment, *, most: int | None = None, seconds: float = _TIME_LIMIT) -> Plan:
    """Measure training steps with batches of increasing size, each twice as large as the one before.

    Args:
        experiment: model, data and settings.
        most: largest size to measure; None for no limit other than memory and time.
        seconds: time in seconds after which no larger batch is measured.

    Raises:
        GeoeqError: the smallest batch does not fit into memory.
    """
    ((setting, requested),) = experiment.recipe.batch_limit.items()
    sizes = _sizes(experiment, setting)
    biggest, least = (len(sizes), 1) if setting == "batch_size" else (int(sizes.sum()), int(sizes.max()))
    step = _stepper(experiment)
    measured: list[Measured] = []
    start = time.monotonic()
    failed: int | None = None
    size = min(max(least, min(requested // 4, most or requested)), biggest)

    def warm_up(size: int) -> None:  # makes tables and compiled code
        step(_batch(experiment, setting, size))

    def measure(size: int) -> None:
        measured.append(_measure(experiment, setting, size, step))

    while not _fits(warm_up, size):
        if size == least:
            device = experiment.device.type
            raise GeoeqError(f"Memory ran out on {device} in a step with the smallest {setting}: {least}.")
        size, failed = max(least, size // 4), size
    available = available_memory(experiment.device)  # after the libraries have allocated theirs
    plan = Plan(setting, (), available, biggest, failed)
    while len(measured) < _MOST_SIZES and size != failed:
        if not _fits(measure, size):
            failed = size
            break
        plan = Plan(setting, tuple(measured), available, biggest, failed)
        size *= 2
        too_large = size > biggest or (most is not None and size > most)
        full = available is not None and len(measured) > 1 and plan.memory(size) > _CAREFUL * available
        if too_large or full or time.monotonic() - start > seconds:
            break
    if not measured:
        raise GeoeqError(f"Memory ran out on {experiment.device.type} while measuring a step with {setting}: {size}.")
    return replace(plan, failed=failed)


def _fits(work: Callable[[int], None], size: int) -> bool:
    """Return whether ``work`` fits into memory with a batch of this size; if not, free the memory that it used."""
    try:
        work(size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    give_back()
    return False


def print_plan(recipe: Recipe, file: Path, console: Console, settings: Sequence[str] = ()) -> None:
    """Print which batches fit and how long an epoch takes (``geoeq train --plan``)."""
    table_class = import_extra("rich.table", "train").Table
    experiment = build_experiment(recipe, recipe_origin(file, settings))
    plan = make_plan(experiment)
    processes = recipe.devices * recipe.num_nodes
    table = table_class(
        title=f"{experiment.model_name} on {experiment.device.type}: a training step", title_justify="left"
    )
    for name in (plan.setting, "graphs", "atoms", "edges", "memory [GB]", "step [s]", "epoch"):
        table.add_column(name, justify="right")
    for step in plan.measured:
        counts = [f"{value:,}" for value in (step.size, step.graphs, step.atoms, step.edges)]
        epoch = _epoch(experiment, plan, step.size, processes)
        table.add_row(*counts, f"{step.memory / 1e9:.2f}", f"{step.seconds:.3g}", epoch)
    console.print(table)
    size, own = plan.largest, experiment.recipe.batch_limit[plan.setting]
    where = "" if processes == 1 else f", on each of {processes} devices"
    for line in [
        f"The largest batch that fits into {(plan.available or 0) / 1e9:.1f} GB has {plan.setting}: {size}{where} (a "
        f"tenth of the memory is left free); an epoch then takes {_epoch(experiment, plan, size, processes)}."
        if size
        else "The largest batch cannot be estimated: the memory did not grow with the batch, or is not known.",
        f"The recipe has {plan.setting}: {own}: an epoch takes {_epoch(experiment, plan, own, processes)}, and a step "
        f"{plan.memory(own) / 1e9:.2f} GB. Times are of training steps only, without reading and validation.",
    ]:
        console.print(line, highlight=False, soft_wrap=True)


def out_of_memory(experiment: Experiment) -> GeoeqError:
    """Return the error for a training that ran out of memory; it names a size that fits, from smaller steps."""
    ((setting, size),) = experiment.recipe.batch_limit.items()
    give_back()
    text = f"Memory ran out on {experiment.device.type} in a step with {setting}: {size}."
    try:
        plan = make_plan(experiment, most=max(1, size // 2))
    except (RuntimeError, MemoryError, GeoeqError):
        return GeoeqError(f"{text} Smaller batches could not be measured either. Use a smaller network.")
    fits = min(plan.largest or size // 2, int(_USED * size))
    if fits < 1:
        return GeoeqError(f"{text} Not even one structure fits. Use a smaller network.")
    more = max(2, -(-size // fits))
    return GeoeqError(
        f"{text} Smaller steps show that {setting}={fits} fits ({plan.memory(fits) / 1e9:.2f} GB); with "
        f"accumulate={more} a step has at least as many structures. See also geoeq train --plan."
    )


def _sizes(experiment: Experiment, setting: str) -> NDArray[np.int64]:
    indices = experiment.split["train"]
    if setting == "batch_edges":
        return experiment.dataset.edge_counts(experiment.model.cutoff)[indices]
    return np.diff(experiment.dataset.ptr)[indices]


def _batch(experiment: Experiment, setting: str, size: int) -> Batch:
    options = experiment.loader_options() | {"workers": 0, "ahead": False, setting: size}
    loader = experiment.dataset.loader(experiment.split["train"], shuffle=True, seed=experiment.recipe.seed, **options)
    return next(iter(loader)).to(experiment.device)


def _stepper(experiment: Experiment) -> Callable[[Batch], None]:
    """Return a function that does a training step with a copy of the model and an optimizer."""
    from geoeq.training.module import TrainingModule

    recipe = experiment.recipe
    model = copy.deepcopy(experiment.model).to(experiment.device).train()
    module = TrainingModule(model, recipe, experiment.loss(), Schedule(recipe.schedule, 1, 1), experiment.factors).to(
        experiment.device
    )
    optimizer = module.configure_optimizers()
    mixed = torch.autocast(experiment.device.type, torch.bfloat16) if recipe.precision == "bf16-mixed" else None

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        with mixed or contextlib.nullcontext():
            loss = module.step_loss(batch)
        loss.backward()
        optimizer.step()
        if experiment.device.type == "cuda":
            torch.cuda.synchronize(experiment.device)

    return step


def _measure(experiment: Experiment, setting: str, size: int, step: Callable[[Batch], None]) -> Measured:
    batch = _batch(experiment, setting, size)
    start_peak(experiment.device)
    step(batch)
    memory = peak_memory(experiment.device)
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < 1.0:
        begin = time.perf_counter()
        step(batch)
        times.append(time.perf_counter() - begin)
    edges = batch.edge_index.shape[1] if "edge_index" in batch else 0
    return Measured(size, batch.num_graphs, batch.num_nodes, edges, memory, min(times))


def _epoch(experiment: Experiment, plan: Plan, size: int, processes: int) -> str:
    options = experiment.loader_options() | {plan.setting: size}
    share = Share(0, processes, experiment.recipe.accumulate)
    loader = experiment.dataset.loader(
        experiment.split["train"], shuffle=True, seed=experiment.recipe.seed, share=share, **options
    )
    sampler = loader.sampler
    batches = sampler.batches(0) if isinstance(sampler, BatchSampler) else 0
    full = min(size, plan.biggest / (batches * processes))
    seconds = batches * plan.seconds(full)
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60)):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"
