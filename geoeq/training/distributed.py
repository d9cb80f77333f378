"""The processes that train one model together, as torchrun or SLURM started them."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from geoeq.errors import RecipeError
from geoeq.resources import import_extra
from geoeq.training.recipe import Recipe

__all__ = ["Team", "join_team", "launched"]

#: A process that waits so long for the first to prepare the data gives up, and so long for the others in a step.
_PATIENCE, _STEP_PATIENCE = datetime.timedelta(hours=6), datetime.timedelta(minutes=30)

#: What gloo says, which has no error of its own, where a process has ended or a machine does not answer.
_GONE = ("by peer", "Timed out waiting")


@dataclass(frozen=True)
class Team:
    """This process among those of a run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        here: how many of them are on this machine.
        environment: Lightning's description of what started them; None for a process alone.
        group: of those that wait; None for a process alone.
    """

    rank: int = 0
    size: int = 1
    here: int = 1
    environment: Any = None
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that prepares data, writes files and shows the progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            torch.distributed.all_reduce(torch.zeros(1), group=self.group)  # on the CPU: no GPU is chosen yet

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that another process has gone."""
        gone = isinstance(error, torch.distributed.DistError) or any(words in str(error) for words in _GONE)
        return self.size > 1 and gone


def launched() -> bool:
    """Whether torchrun or SLURM has started this process as one of several."""
    return _environment() is not None


@contextlib.contextmanager
def join_team(recipe: Recipe) -> Iterator[Team]:
    """Find the other processes of a run, and leave them when the block ends.

    Raises:
        RecipeError: there are not as many as the recipe says.
    """
    environment = _environment()
    size = 1 if environment is None else int(environment.world_size())
    _compare(recipe, size)
    if environment is None or size == 1:
        yield Team()
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and recipe.device != "cpu" else "gloo",
        rank=environment.global_rank(),
        world_size=size,
        timeout=_STEP_PATIENCE,
    )
    try:
        group = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
        yield Team(environment.global_rank(), size, recipe.devices, environment, group)
    finally:
        torch.distributed.destroy_process_group()


def _compare(recipe: Recipe, size: int) -> None:
    """See that as many processes were started, on as many machines, as the recipe says.

    Raises:
        RecipeError: they were not.
    """
    wanted = recipe.devices * recipe.num_nodes
    asked = f"devices: {recipe.devices} and num_nodes: {recipe.num_nodes} are {wanted} processes"
    if size == 1 and wanted > 1:
        raise RecipeError(
            f"{asked}, and this one was started alone: use the command line, geoeq train RECIPE --devices "
            f"{recipe.devices}, on several machines with torchrun or srun."
        )
    here, machines = _started()
    if size != wanted or (size > 1 and (here, machines) != (recipe.devices, recipe.num_nodes)):
        raise RecipeError(
            f"{asked}, and {size} were started, {here} on each of {machines} machines: say --devices {here} "
            f"--num-nodes {machines}."
        )
    seen = torch.cuda.device_count() if recipe.device != "cpu" else 0
    if 0 < seen < recipe.devices:
        raise RecipeError(
            f"devices: {recipe.devices}, and this process sees {seen} GPUs: each has to see all of its machine "
            "(srun --gpus-per-node, not --gpus-per-task), or say device=cpu."
        )


def _started() -> tuple[int, int]:
    """How many processes were started on each machine, and on how many machines."""
    if torch.distributed.is_torchelastic_launched():
        here, size = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        return here, size // here
    if _in_slurm():
        return int(os.environ["SLURM_NTASKS_PER_NODE"].partition("(")[0]), int(os.environ["SLURM_NNODES"])
    return 1, 1


def _in_slurm() -> bool:
    """Whether srun has started this process and others; a batch script of one job has most of its variables, too."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _environment() -> Any:
    """Lightning's description of what started the processes; None if nothing did.

    Raises:
        RecipeError: srun did, and does not say how many on each machine.
    """
    environments = import_extra("lightning.fabric.plugins.environments", "train")
    if torch.distributed.is_torchelastic_launched():
        return environments.TorchElasticEnvironment()
    if not _in_slurm():
        return None
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise RecipeError(
            f"srun has started {os.environ['SLURM_STEP_NUM_TASKS']} processes, and does not say how many on each "
            "machine: use srun --nodes M --ntasks-per-node N."
        )
    return environments.SLURMEnvironment(auto_requeue=False)  # a run goes on from its own state, not from Lightning's
