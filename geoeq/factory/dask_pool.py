"""Workers for items on the machines of a Dask cluster: each of its threads has a process of its own, as here.

So the numbers are those of processes here, and a calculator that crashes takes no worker of Dask along.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from geoeq.errors import GeoeqError, InputError
from geoeq.factory.make_plan import programs
from geoeq.factory.methods import find_method
from geoeq.factory.pool import WorkerProcess
from geoeq.factory.settings import Settings
from geoeq.workers.dask import Cluster, Task

__all__ = ["DaskCrew"]

#: Items that are asked of each thread of the cluster, so that none waits, nor one that joins.
_AHEAD = 4

#: Keys of an item that are paths.
_PATHS = ("start", "output")


class DaskCrew:
    """The workers of a cluster; a context manager that ends their processes and leaves the cluster.

    Args:
        settings: of the set.
        work: the folder of work, which all machines see under the same path.
        address: of the scheduler.
        smiles: whether there are molecules to be built.

    Attributes:
        count: how many items are asked for at once.

    Raises:
        InputError: no scheduler answers there, or it has no workers.
        MissingExtraError: the extra "dask" is not installed.
    """

    def __init__(self, settings: Settings, work: Path, address: str, *, smiles: bool) -> None:
        self._cluster = Cluster(address)
        self.count = _AHEAD * self._cluster.count
        ours = programs(find_method(settings.method, settings.arguments), smiles=smiles)
        self._begin = json.dumps(
            {
                "run": uuid.uuid4().hex,
                "settings": settings.to_json(),
                "work": str(work.resolve()),
                "programs": ours,
                "smiles": smiles,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):  # the cluster may have gone
            self._cluster.on_all(_leave, self._begin)
        self._cluster.__exit__(kind, error, trace)

    def worker(self) -> _Asker:
        """Who asks the cluster."""
        return _Asker(self._cluster, self._begin)


class _Asker:
    def __init__(self, cluster: Cluster, begin: str) -> None:
        self._cluster, self._begin = cluster, begin
        self._task: Task | None = None
        self._ended = False

    def ask(self, item: Mapping[str, Any]) -> str | None:
        """None if all is well, else how the process died, or the workers of Dask."""
        known = {name: os.path.abspath(item[name]) for name in _PATHS if name in item}
        self._task = self._cluster.submit(_work, self._begin, {**item, **known})
        if self._ended:
            self._task.cancel()
        try:
            reason: str | None = self._task.result(Path(item["output"]))
        except ChildProcessError as error:
            return str(error)
        return reason

    def end(self) -> None:
        """Wait for it no longer."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()


# What follows runs on the workers.

_here = threading.local()
_started: dict[str, list[WorkerProcess]] = {}


def _work(begin: str, item: dict[str, Any]) -> str | None:
    """Have the process of this thread work on an item; None, or how it died."""
    if Path(item["output"]).exists():  # of a worker that died before it could say so
        return None
    if getattr(_here, "begin", None) != begin:
        if hasattr(_here, "process"):  # of another run, which may have been killed
            _here.process.end()
        settings = _checked(begin)
        log = Path(json.loads(begin)["work"]) / f"log-{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}.txt"
        _here.process = WorkerProcess(settings, log)
        _here.begin = begin
        _started.setdefault(begin, []).append(_here.process)
    reason: str | None = _here.process.ask(item)
    if reason is not None:
        _here.begin = None
    return reason


@functools.lru_cache(maxsize=1)
def _checked(begin: str) -> Settings:
    """The settings, if this machine computes the same numbers and sees the folder.

    Raises:
        InputError: it does not.
    """
    known = json.loads(begin)
    settings, where = Settings.from_json(known["settings"]), f"The Dask worker on {socket.gethostname()}"
    try:
        theirs = programs(find_method(settings.method, settings.arguments), smiles=known["smiles"])
    except GeoeqError as error:
        raise InputError(f"{where}: {error}") from error
    if theirs != known["programs"]:
        raise InputError(
            f"{where} has {', '.join(theirs)}, not {', '.join(known['programs'])}: its numbers may differ."
        )
    if not Path(known["work"]).is_dir():
        raise InputError(f"{where} does not see {known['work']}: all machines have to, under the same path.")
    return settings


def _leave(begin: str) -> None:
    for process in _started.pop(begin, []):
        process.end()
