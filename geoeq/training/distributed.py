"""Distributed training: the group of processes that train one model, and their launch on one machine by torchrun."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from geoeq.errors import GeoeqError, RecipeError
from geoeq.resources import import_extra
from geoeq.training.recipe import Recipe

__all__ = ["ProcessGroup", "join_processes", "launch", "launched"]

#: Timeout while the main process prepares the data, and timeout of a training step.
_PREPARATION_TIMEOUT, _STEP_TIMEOUT = datetime.timedelta(hours=6), datetime.timedelta(minutes=30)

#: Parts of gloo's messages when a process has ended or a machine does not answer; gloo has no exception class for it.
_PEER_FAILURE = ("by peer", "Timed out waiting")

#: Exit statuses of ``geoeq`` after an error that it has explained, and after an interruption.
_EXPLAINED, _INTERRUPTED = 2, 130


@dataclass(frozen=True)
class ProcessGroup:
    """This process and its place among the processes of a run.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes of the run.
        local_size: number of processes on this machine.
        environment: Lightning's description of the launcher; None for a single process.
        barrier_group: torch's process group for barriers; None for a single process.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    environment: Any = None
    barrier_group: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process prepares the data, writes the files and shows the progress."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            torch.distributed.all_reduce(torch.zeros(1), group=self.barrier_group)  # on the CPU: no GPU is chosen yet

    def is_peer_failure(self, error: BaseException) -> bool:
        """Return whether an error means that another process has ended."""
        ended = isinstance(error, torch.distributed.DistError) or any(words in str(error) for words in _PEER_FAILURE)
        return self.size > 1 and ended


def launched() -> bool:
    """Return whether torchrun or SLURM has started this process as one of several."""
    return _environment() is not None


@contextlib.contextmanager
def join_processes(recipe: Recipe) -> Iterator[ProcessGroup]:
    """Join the process group of a run, and leave it at the end of the block.

    Raises:
        RecipeError: the number of processes differs from the recipe.
    """
    environment = _environment()
    size = 1 if environment is None else int(environment.world_size())
    _check_size(recipe, size)
    if environment is None or size == 1:
        yield ProcessGroup()
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and recipe.device != "cpu" else "gloo",
        rank=environment.global_rank(),
        world_size=size,
        timeout=_STEP_TIMEOUT,
    )
    try:
        group = torch.distributed.new_group(backend="gloo", timeout=_PREPARATION_TIMEOUT)
        yield ProcessGroup(environment.global_rank(), size, recipe.devices, environment, group)
    finally:
        torch.distributed.destroy_process_group()


def _check_size(recipe: Recipe, size: int) -> None:
    """Check the number of processes and machines, and of the GPUs that this process can use.

    Raises:
        RecipeError: they differ from the recipe.
    """
    expected = recipe.devices * recipe.num_nodes
    settings = f"devices: {recipe.devices} and num_nodes: {recipe.num_nodes} mean {expected} processes"
    if size == 1 and expected > 1:
        raise RecipeError(
            f"{settings}, but only this one was started. Use the command line: geoeq train RECIPE --devices "
            f"{recipe.devices}, or torchrun or srun for several machines."
        )
    local_size, machines = _started()
    if size != expected or (size > 1 and (local_size, machines) != (recipe.devices, recipe.num_nodes)):
        raise RecipeError(
            f"{settings}, but {size} were started, {local_size} on each of {machines} machines. Use --devices "
            f"{local_size} --num-nodes {machines}."
        )
    visible = torch.cuda.device_count() if recipe.device != "cpu" else 0
    if 0 < visible < recipe.devices:
        raise RecipeError(
            f"devices: {recipe.devices}, but only {visible} GPUs are visible to this process. Every process has to see "
            "all GPUs of its machine (srun --gpus-per-node, not --gpus-per-task); or use device=cpu."
        )


def _started() -> tuple[int, int]:
    """Return the number of processes on each machine, and the number of machines."""
    if torch.distributed.is_torchelastic_launched():
        local_size, size = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        return local_size, size // local_size
    if _in_slurm():
        return int(os.environ["SLURM_NTASKS_PER_NODE"].partition("(")[0]), int(os.environ["SLURM_NNODES"])
    return 1, 1


def _in_slurm() -> bool:
    """Return whether srun started several processes (a batch script with one task sets most of the variables too)."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def _environment() -> Any:
    """Return Lightning's description of the launcher; None if there is none.

    Raises:
        RecipeError: srun started the processes without the number of processes per machine.
    """
    environments = import_extra("lightning.fabric.plugins.environments", "train")
    if torch.distributed.is_torchelastic_launched():
        return environments.TorchElasticEnvironment()
    if not _in_slurm():
        return None
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise RecipeError(
            f"srun has started {os.environ['SLURM_STEP_NUM_TASKS']} processes without their number per machine. Use "
            "srun --nodes M --ntasks-per-node N."
        )
    return environments.SLURMEnvironment(auto_requeue=False)  # a run resumes from its own state, not from Lightning's


def launch(recipe: Recipe, arguments: Sequence[str]) -> int:
    """Run ``geoeq`` in ``recipe.devices`` processes on this machine, and return the exit status.

    If one process dies, the others are stopped.

    Args:
        recipe: settings of the run.
        arguments: command line of each process, without "geoeq".

    Raises:
        GeoeqError: one of the processes died.
        RecipeError: the recipe needs several machines, or more GPUs than this machine has.
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
            f"devices: {count}, but this machine has {cuda} CUDA GPUs. Use --devices {cuda}, or device=cpu."
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(recipe.threads or max(1, cores // count)))
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns about networks that use all their parameters
    # The processes find the same modules as this one.
    os.environ["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
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
        elastic_launch(config, sys.executable)("-P", "-m", "geoeq", *arguments)
    except ChildFailedError as error:
        codes = {rank: int(failure.exitcode) for rank, failure in error.failures.items()}
        # Report a killed process first: the others may have reported its loss, or were ended by SIGTERM.
        died = {rank: code for rank, code in sorted(codes.items()) if code not in (_EXPLAINED, _INTERRUPTED)}
        if not died:
            return next(iter(codes.values()))
        rank = min(died, key=lambda rank: (died[rank] == -signal.SIGTERM, died[rank] >= 0))
        raise GeoeqError(_describe_death(rank, count, died[rank])) from error
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            return _INTERRUPTED
        return 128 + int(error.sigval)
    return 0


def _describe_death(rank: int, count: int, code: int) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    memory = ", perhaps because memory ran out (use smaller batches)" if code == -signal.SIGKILL else ""
    return (
        f"Process {rank} of {count} (counted from 0) {how}{memory}. The others were stopped. Run the same command "
        "again to resume from the last saved state."
    )
