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
from geoeq.extras import import_extra
from geoeq.training.recipe import Recipe

__all__ = ["Team", "join_team", "launched"]

#: A process that waits so long for the others gives up: they have died, or prepare a very large data set.
_PATIENCE = datetime.timedelta(hours=6)


@dataclass(frozen=True)
class Team:
    """This process among those of a run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        here: how many of them are on this machine.
    """

    rank: int = 0
    size: int = 1
    here: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that prepares data, writes files and shows the progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            torch.distributed.all_reduce(torch.zeros(1))  # on the CPU: it needs no GPU to be chosen yet

    def lost(self, error: BaseException) -> bool:
        """Whether an error says that another process has gone."""
        gone = isinstance(error, torch.distributed.DistError) or "by peer" in str(error)
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
    wanted = recipe.devices * recipe.num_nodes
    environment = _environment()
    size = 1 if environment is None else int(environment.world_size())
    if size != wanted:
        asked = f"devices: {recipe.devices} and num_nodes: {recipe.num_nodes} are {wanted} processes"
        raise RecipeError(
            f"{asked}, and this one was started alone: use the command line, geoeq train RECIPE --devices "
            f"{recipe.devices}, on several machines with torchrun or srun."
            if size == 1
            else f"{asked}, and {size} were started: say --devices for those of a machine, and --num-nodes."
        )
    if environment is None or size == 1:
        yield Team()
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and recipe.device != "cpu" else "gloo",
        rank=environment.global_rank(),
        world_size=size,
        timeout=_PATIENCE,
    )
    try:
        yield Team(environment.global_rank(), size, recipe.devices)
    finally:
        torch.distributed.destroy_process_group()


def _environment() -> Any:
    """Lightning's description of what started the processes; None if nothing did."""
    environments = import_extra("lightning.fabric.plugins.environments", "train")
    for kind in (environments.TorchElasticEnvironment, environments.SLURMEnvironment):
        if kind.detect():
            return kind()
    return None
