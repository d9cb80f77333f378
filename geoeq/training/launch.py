"""Several processes on one machine for ``geoeq train --devices N``, started and watched by torchrun's own launcher."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from geoeq.errors import GeoeqError, RecipeError
from geoeq.training.recipe import Recipe

__all__ = ["launch"]

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
