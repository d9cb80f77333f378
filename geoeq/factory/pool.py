"""Compute the items of a data set in worker processes, on this machine or on a Dask cluster.

On a cluster each task runs in a worker process as well, so that the numbers are the same and a calculator that crashes
does not end the Dask worker.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from geoeq.errors import GeoeqError, InputError
from geoeq.factory.methods import find_method
from geoeq.factory.set_folder import programs
from geoeq.factory.settings import Settings
from geoeq.factory.task_results import Failure, Result
from geoeq.factory.tasks import start_working
from geoeq.workers.dask import DaskPool
from geoeq.workers.processes import Pool, Task, WorkerPool, available_cores

__all__ = ["dask_pool", "process_pool", "run_items", "start_on_machine"]

_TRIES = 2

#: Number of items submitted for each thread of a cluster, so that neither it nor a thread that joins has to wait.
_AHEAD = 4

#: Keys of an item that are paths.
_PATHS = ("start", "output")

_TARGET = f"{start_working.__module__}:{start_working.__name__}"


def process_pool(settings: Settings, work: Path, processes: int | None = None) -> WorkerPool:
    """Start workers on this machine.

    Args:
        settings: settings of the data set.
        work: folder for the output of the calculators.
        processes: number of workers; None for the number of cores.
    """
    return WorkerPool(_TARGET, {"settings": settings.to_json()}, processes or available_cores(), work / "log")


def dask_pool(settings: Settings, work: Path, address: str, *, smiles: bool) -> DaskPool:
    """Use the workers of a Dask cluster.

    Args:
        settings: settings of the data set.
        work: folder of unfinished work, which all machines must see under the same path.
        address: address of the scheduler.
        smiles: whether molecules are built from SMILES.

    Raises:
        InputError: no scheduler answers at the address, or it has no workers.
        MissingExtraError: the extra "dask" is not installed.
    """
    setup = {
        "settings": settings.to_json(),
        "work": str(work.resolve()),
        "programs": programs(find_method(settings.method, settings.arguments), smiles=smiles),
        "smiles": smiles,
    }
    return DaskPool(address, f"{__name__}:{start_on_machine.__name__}", setup, ahead=_AHEAD)


@contextlib.contextmanager
def start_on_machine(setup: Mapping[str, Any]) -> Iterator[Callable[[Task], None]]:
    """Yield the function that computes items on a machine of a cluster.

    Raises:
        InputError: the machine would compute other numbers, or does not see the folder of work.
    """
    settings, where = Settings.from_json(setup["settings"]), f"The Dask worker on {socket.gethostname()}"
    work = Path(setup["work"])
    try:
        theirs = programs(find_method(settings.method, settings.arguments), smiles=setup["smiles"])
    except GeoeqError as error:
        raise InputError(f"{where}: {error}") from error
    if theirs != setup["programs"]:
        raise InputError(
            f"{where} has {', '.join(theirs)}, not {', '.join(setup['programs'])}: its numbers may differ."
        )
    if not work.is_dir():
        raise InputError(f"{where} does not see {work}: all machines must see it under the same path.")
    log = work / f"log-{socket.gethostname()}"
    with WorkerPool(_TARGET, {"settings": settings.to_json()}, available_cores(), log) as pool:

        def compute(item: Task) -> None:
            if not Path(item["output"]).exists():  # a worker that died may have written it before it could answer
                pool.run(item)

        yield compute


def run_items(items: Sequence[Mapping[str, Any]], pool: Pool, title: str) -> None:
    """Compute all items whose output does not exist. An item that ends its worker twice becomes a failure.

    Args:
        items: items for ``geoeq.factory.tasks.run_item``, with "name" and "number" for failures and "output", the path
            of the result.
        pool: workers; they are ended if anything is raised.
        title: title of the progress bar.
    """
    waiting = [{**item, **{name: os.path.abspath(item[name]) for name in _PATHS if name in item}} for item in items]
    waiting = [item for item in waiting if not Path(item["output"]).exists()]
    stopped = threading.Event()

    def run(item: Mapping[str, Any]) -> None:
        reason = ""
        for _ in range(_TRIES):
            if stopped.is_set():
                return
            try:
                pool.run(item)
                return
            except ChildProcessError as error:
                reason = str(error)
        if not stopped.is_set():
            failure = Failure(item["name"], item["number"], "process", f"{reason}, {_TRIES} times")
            Result(failures=[failure]).write(Path(item["output"]))

    with ThreadPoolExecutor(max(1, min(pool.count, len(waiting)))) as threads:
        try:
            results = threads.map(run, waiting)
            for _ in tqdm(results, total=len(items), initial=len(items) - len(waiting), desc=title, disable=None):
                pass
        except BaseException:
            stopped.set()
            pool.close()
            raise
