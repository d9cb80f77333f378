"""The processes that train one model together, as torchrun or SLURM started them."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geoeq.errors import GeoeqError, RecipeError
from geoeq.resources import import_extra
from geoeq.training.recipe import Recipe

__all__ = ["ProcessGroup", "join_processes", "launch", "launched"]

#: A process that waits so long for the first to prepare the data gives up, and so long for the others in a step.
_PATIENCE, _STEP_PATIENCE = datetime.timedelta(hours=6), datetime.timedelta(minutes=30)

#: What gloo says, which has no error of its own, where a process has ended or a machine does not answer.
_GONE = ("by peer", "Timed out waiting")


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of a run.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_size: how many of them are on this machine.
        environment: Lightning's description of what started them; None for a process alone.
        barrier_group: of those that wait; None for a process alone.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    environment: Any = None
    barrier_group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prepares data, writes files and shows the progress."""
        return self.rank == 0

    def barrier(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            torch.distributed.all_reduce(torch.zeros(1), group=self.barrier_group)  # on the CPU: no GPU is chosen yet

    def is_peer_failure(self, error: BaseException) -> bool:
        """Whether an error says that another process has gone."""
        gone = isinstance(error, torch.distributed.DistError) or any(words in str(error) for words in _GONE)
        return self.size > 1 and gone


def launched() -> bool:
    """Whether torchrun or SLURM has started this process as one of several."""
    return _environment() is not None


@contextlib.contextmanager
def join_processes(recipe: Recipe) -> Iterator[ProcessGroup]:
    """Find the other processes of a run, and leave them when the block ends.

    Raises:
        RecipeError: there are not as many as the recipe says.
    """
    environment = _environment()
    size = 1 if environment is None else int(environment.world_size())
    _compare(recipe, size)
    if environment is None or size == 1:
        yield ProcessGroup()
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
        yield ProcessGroup(environment.global_rank(), size, recipe.devices, environment, group)
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
    """Return whether srun started several processes (a batch script with one task sets most of the variables too)."""
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


#: What ``geoeq`` returns after an error that it has explained, and after an interruption.
_EXPLAINED, _INTERRUPTED = 2, 130


def launch(recipe: Recipe, arguments: Sequence[str]) -> int:
    """Run ``geoeq`` with these arguments in as many processes as ``recipe.devices`` says; the exit status.

    If one of them dies, the others are ended, too.

    Raises:
        GeoeqError: one of the processes died.
        RecipeError: the recipe wants several machines, or more GPUs than there are.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    count = recipe.devices
    if recipe.num_nodes > 1:
        raise RecipeError(
            f"num_nodes: {recipe.num_nodes}: start it on every machine, with torchrun --nnodes {recipe.num_nodes} "
            f"--nproc-per-node {count} --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m geoeq train, or by srun."
        )
    cuda = torch.cuda.device_count() if recipe.device != "cpu" else 0
    if cuda and count > cuda:
        raise RecipeError(
            f"devices: {count}, and this machine has {cuda} CUDA GPUs; say --devices {cuda}, or device=cpu."
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(recipe.threads or max(1, cores // count)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP remarks on networks that use all their parameters
    # Its modules are found where ours are, a user's own in the folder of the call among them.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))
    config = LaunchConfig(
        run_id="geoeq",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "geoeq", *arguments)
    except ChildFailedError as error:
        codes = {rank: int(failure.exitcode) for rank, failure in error.failures.items()}
        # One that was killed comes first: the others may have said that they lost it, and were ended by SIGTERM.
        died = {rank: code for rank, code in sorted(codes.items()) if code not in (_EXPLAINED, _INTERRUPTED)}
        if not died:
            return next(iter(codes.values()))
        rank = min(died, key=lambda rank: (died[rank] == -signal.SIGTERM, died[rank] >= 0))
        raise GeoeqError(_died(rank, count, died[rank])) from error
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            return _INTERRUPTED
        return 128 + int(error.sigval)
    return 0


def _died(rank: int, count: int, code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    memory = ", perhaps for want of memory (smaller batches need less)" if code == -signal.SIGKILL else ""
    return (
        f"Process {rank} of {count} (counted from 0) {how}{memory}. The others were stopped. The same command goes on "
        "where the training was last saved."
    )
