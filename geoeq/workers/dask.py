"""Workers of a Dask cluster, on other machines too. They need the same geoeq and see the same files."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import geoeq
from geoeq.errors import DataError, GeoeqError, InputError
from geoeq.resources import import_extra
from geoeq.workers.processes import Task, resolve

__all__ = ["DaskPool"]

#: Seconds within which the scheduler must answer, and a file written on another machine must appear here.
_PATIENCE = 30.0

#: Seconds between checks of a running cluster, and without any worker before it is given up.
_CHECK_INTERVAL, _LONGEST_IDLE = 5.0, 600.0


class DaskPool:
    """The workers of a Dask cluster; a context manager that leaves the cluster.

    Args:
        address: address of the scheduler, such as ``tcp://HOST:8786``.
        target: the tasks as "module:function", where the function is a ``geoeq.workers.processes.Start``.
        setup: argument of that function, as JSON can hold it.
        ahead: number of tasks submitted for each thread of the cluster, so that none waits for the next one.

    Attributes:
        count: number of tasks to run at the same time.

    Raises:
        InputError: no scheduler answers at the address, or it has no workers.
        MissingExtraError: the extra "dask" is not installed.
    """

    def __init__(self, address: str, target: str, setup: Mapping[str, Any], ahead: int = 1) -> None:
        distributed = import_extra("distributed", "dask")
        self.address = address
        self._killed: type[Exception] = distributed.KilledWorker
        try:
            self._client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"No Dask scheduler answers at {address} ({error}); the usual form is tcp://HOST:8786."
            ) from error
        threads = sum(self._client.nthreads().values())
        if threads == 0:
            self._client.close()
            raise InputError(f"The Dask scheduler at {address} has no workers; start some: dask worker {address}.")
        self.count = ahead * threads
        self._session = json.dumps({"id": uuid.uuid4().hex, "target": target, "setup": setup})
        self._futures: set[Any] = set()
        self._lock = threading.Lock()
        self._checked = self._last_seen = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel all tasks, end what the workers started for them, and disconnect."""
        for future in list(self._futures):
            with contextlib.suppress(Exception):
                future.cancel()
        with contextlib.suppress(Exception):  # the cluster may have gone
            self._client.run(_leave, self._session, on_error="ignore")
        self._client.close()

    def run(self, task: Task) -> Any:
        """Compute a task on any worker, and return its answer once its output is visible here.

        Raises:
            ChildProcessError: the task ended one worker after another, or the process in which it ran.
            DataError: the cluster has gone, or the output does not appear here.
            InputError: the workers have no geoeq, or another version of it.
            Exception: any error that the task raises.
        """
        future = self._client.submit(_compute, self._session, dict(task), pure=False)
        self._futures.add(future)
        done = threading.Event()
        try:
            future.add_done_callback(lambda _: done.set())
            while not done.wait(_CHECK_INTERVAL) and not future.done():
                self.check_workers()
            answer = self._result(future)
        finally:
            self._futures.discard(future)
            future.release()  # otherwise it would be computed again if the worker that holds it dies
        _wait_for(Path(task["output"]))
        return answer

    def check_workers(self) -> None:
        """Check, at intervals, that the cluster still has workers.

        Raises:
            DataError: there have been none for ten minutes.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._checked < _CHECK_INTERVAL:
                return
            self._checked = now
            if self._client.nthreads():
                self._last_seen = now
            elif now - self._last_seen >= _LONGEST_IDLE:
                raise DataError(
                    f"The Dask cluster at {self.address} has had no workers for {_LONGEST_IDLE / 60:.0f} minutes. "
                    "Finished work is kept: start some workers and run the same command again to resume."
                )

    def _result(self, future: Any) -> Any:
        try:
            return future.result()
        except self._killed as error:
            raise ChildProcessError(f"it ended one Dask worker after another ({error})") from error
        except ChildProcessError:
            raise
        except (CancelledError, OSError) as error:
            raise DataError(
                f"The Dask scheduler at {self.address} has gone. Finished work is kept: run the same command with the "
                "address of another scheduler to resume."
            ) from error
        except (ImportError, RuntimeError) as error:
            if not isinstance(error, GeoeqError) and (isinstance(error, ImportError) or "deserializ" in str(error)):
                raise InputError(
                    f"Dask at {self.address} cannot load its tasks ({error}): the scheduler and its workers need "
                    f"geoeq {geoeq.__version__} and its dependencies in the versions installed here."
                ) from error
            raise


def _wait_for(path: Path) -> None:
    until = time.monotonic() + _PATIENCE
    while not path.exists():  # files of another machine may become visible late
        if time.monotonic() > until:
            raise DataError(f"{path}: a Dask worker wrote it, but it is not visible here. All machines must see it.")
        time.sleep(0.1)


# The functions below run on the workers.


@dataclass
class _Session:
    compute: Callable[[Task], Any]
    stack: contextlib.ExitStack
    active: int = 0


_sessions: dict[str, _Session] = {}
_lock = threading.Lock()


def _compute(description: str, task: Task) -> Any:
    with _started(description) as compute:
        return compute(task)


@contextlib.contextmanager
def _started(description: str) -> Iterator[Callable[[Task], Any]]:
    """Start a session on its first task, and end idle ones, which a killed client could not end itself."""
    with _lock:
        if description not in _sessions:
            for name in [name for name, other in _sessions.items() if not other.active]:
                _sessions.pop(name).stack.close()
            known, stack = json.loads(description), contextlib.ExitStack()
            compute = stack.enter_context(resolve(known["target"])(known["setup"]))
            _sessions[description] = _Session(compute, stack)
        session = _sessions[description]
        session.active += 1
    try:
        yield session.compute
    finally:
        with _lock:
            session.active -= 1


def _leave(description: str) -> None:
    with _lock:
        session = _sessions.pop(description, None)
    if session is not None:
        session.stack.close()
