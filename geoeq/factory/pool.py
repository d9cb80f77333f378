"""Workers for items, here or on other machines; one that dies is replaced, and its item tried once more."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm  # type: ignore[import-untyped]

from geoeq.factory.settings import Settings
from geoeq.factory.task_results import Failure, Result

__all__ = ["Crew", "Processes", "Worker", "WorkerProcess", "cores", "run_items"]

_TRIES = 2

#: Computing in several threads gives other last digits.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker(Protocol):
    """What works on items, one after another."""

    def ask(self, item: Mapping[str, Any]) -> str | None:
        """Have it work on an item; None if all is well, else how it died, in words. It is not asked again then."""
        ...

    def end(self) -> None:
        """Let it work no longer; another thread may be asking."""
        ...


class Crew(Protocol):
    """Where workers come from.

    Attributes:
        count: how many are asked at once.
    """

    count: int

    def worker(self) -> Worker:
        """A new one."""
        ...


class Processes:
    """Workers that are processes of this machine.

    Args:
        settings: of the set.
        work: a folder for what calculators print.
        count: how many work at once.
    """

    def __init__(self, settings: Settings, work: Path, count: int) -> None:
        self.count = count
        self._settings, self._work = settings, work

    def worker(self) -> WorkerProcess:
        """A new one, for this thread."""
        return WorkerProcess(self._settings, self._work / f"log-{threading.get_ident()}.txt")


def run_items(items: Sequence[Mapping[str, Any]], crew: Crew, title: str) -> None:
    """Work on all items whose "output" is not there yet.

    Args:
        items: as for ``geoeq.factory.tasks.run_item``, with "name" and "number" for failures, and "output", the file of
            its result.
        crew: who does it.
        title: of the progress bar.
    """
    waiting = [item for item in items if not Path(item["output"]).exists()]
    local = threading.local()
    workers: list[Worker] = []
    stopped = threading.Event()

    def run(item: Mapping[str, Any]) -> None:
        if stopped.is_set():
            return
        for _ in range(_TRIES):
            if getattr(local, "worker", None) is None:
                local.worker = crew.worker()
                workers.append(local.worker)
            reason = local.worker.ask(item)
            if reason is None:
                return
            local.worker = None
            if stopped.is_set():
                return
        failure = Failure(item["name"], item["number"], "process", f"{reason}, {_TRIES} times")
        Result(failures=[failure]).write(Path(item["output"]))

    try:
        with ThreadPoolExecutor(max(1, min(crew.count, len(waiting)))) as threads:
            try:
                found = threads.map(run, waiting)
                for _ in tqdm(found, total=len(items), initial=len(items) - len(waiting), desc=title, disable=None):
                    pass
            except BaseException:
                stopped.set()
                _end(workers)
                raise
    finally:
        _end(workers)


def _end(workers: Sequence[Worker]) -> None:
    for worker in list(workers):
        worker.end()


class WorkerProcess:
    """A process with one thread.

    Args:
        settings: of the set.
        log: the file for what calculators print.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        # Its modules are found where ours are.
        self._log = log
        environment = os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "geoeq.factory.task_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # Ctrl-C is for the one who asked
            )
        self._write(settings.to_json())

    def ask(self, item: Mapping[str, Any]) -> str | None:
        """None if all is well, else how it died."""
        self._write(json.dumps(item))
        if self._process.stdout is not None and self._process.stdout.readline():
            return None
        status = self._process.wait()
        if status < 0:
            return f"its process was ended by signal {-status} ({signal.Signals(-status).name})"
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return f"its process ended with status {status} ({next(filter(None, map(str.strip, lines[::-1])), '')})"

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # one that is gone is noticed by its silence
            if self._process.stdin is not None:
                self._process.stdin.write(text + "\n")
                self._process.stdin.flush()

    def end(self) -> None:
        """Kill it if it is still there, and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
