"""Worker processes on this machine: each computes one task at a time, and a new one replaces one that dies.

A starter process imports the module of the tasks once and forks into the workers, so that they start quickly and share
most of their memory. It is not started by multiprocessing, which would run the user's script again or fork the threads
of torch. Tasks and answers are lines of JSON on a socket.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, Self

import geoeq.errors
from geoeq.errors import GeoeqError

__all__ = ["Pool", "Start", "Task", "WorkerPool", "available_cores", "resolve"]

#: A task as JSON can hold it. Its "output" is the path of the file or folder that the task writes.
Task = Mapping[str, Any]

#: A context manager that takes the setup of a pool and yields the function that computes one task.
Start = Callable[[Mapping[str, Any]], AbstractContextManager[Callable[[Task], Any]]]

#: One thread per worker: several would compete for cores, and give other last digits.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve(target: str) -> Start:
    """Import the function named by "module:function"."""
    module, _, name = target.partition(":")
    start: Start = getattr(importlib.import_module(module), name)
    return start


class Pool(Protocol):
    """Workers that compute tasks, on this machine or elsewhere.

    Attributes:
        count: number of tasks to run at the same time, from as many threads.
    """

    count: int

    def run(self, task: Task) -> Any:
        """Compute a task and return its answer.

        Raises:
            ChildProcessError: the worker died; the message says how.
            Exception: any error that the task raises.
        """
        ...

    def close(self) -> None:
        """End all workers, including those that compute for other threads."""
        ...


class _Worker(NamedTuple):
    pid: int
    lines: IO[str]
    log: Path | None


class WorkerPool:
    """Worker processes of this machine; a context manager that ends them.

    Errors of geoeq are raised again here. Any other error ends the worker, which then counts as dead.

    Args:
        target: the tasks as "module:function", where the function is a ``Start``.
        setup: argument of that function, as JSON can hold it.
        count: number of workers.
        log: prefix of the files that receive the output of each worker; None for the streams of this process.
    """

    def __init__(self, target: str, setup: Mapping[str, Any], count: int, log: str | Path | None = None) -> None:
        log = None if log is None else Path(log)
        self.count = count
        self._setup, self._log = json.dumps(setup), log
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        # Workers find the same modules as this process, and -P none in the current folder that it would not find.
        paths = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        environment = os.environ | _ONE_THREAD | {"PYTHONPATH": paths}
        self._control, theirs = socket.socketpair()
        with theirs:
            self._starter = subprocess.Popen(
                [sys.executable, "-P", "-m", "geoeq.workers.processes", str(theirs.fileno()), target],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches only this process, and all workers can be ended at once
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all workers; tasks that are being computed raise ChildProcessError."""
        with contextlib.suppress(ProcessLookupError):
            if self._starter.returncode is None:
                os.killpg(self._starter.pid, signal.SIGKILL)
        self._starter.wait()
        with self._lock:
            self._control.close()

    def run(self, task: Task) -> Any:
        """Compute a task in an idle worker, or in a new one, and return its answer.

        Raises:
            ChildProcessError: the worker died; the message says how.
            GeoeqError: the error that the task raised.
        """
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = self._start_worker()
        answer = ""
        with contextlib.suppress(OSError):  # a dead worker is noticed by its silence
            worker.lines.write(json.dumps(task) + "\n")
            worker.lines.flush()
            answer = worker.lines.readline()
        if not answer:
            with contextlib.suppress(OSError):
                worker.lines.close()
            raise ChildProcessError(self._cause_of_death(worker))
        self._idle.append(worker)
        result, error = json.loads(answer)
        if error is not None:
            raise getattr(geoeq.errors, error[0], GeoeqError)(error[1])
        return result

    def _start_worker(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            log = self._log and self._log.with_name(f"{self._log.name}-{os.getpid()}-{next(self._numbers)}.txt")
            pid = self._ask_starter({"log": None if log is None else str(log)}, theirs)
            worker = _Worker(pid, ours.makefile("rw"), log)
        with contextlib.suppress(OSError):
            worker.lines.write(self._setup + "\n")
        return worker

    def _ask_starter(self, request: Mapping[str, Any], connection: socket.socket | None = None) -> int:
        answer = b""
        with self._lock, contextlib.suppress(OSError):  # also when the pool was closed
            descriptors = [] if connection is None else [connection.fileno()]
            socket.send_fds(self._control, [json.dumps(request).encode()], descriptors)
            answer = self._control.recv(64)
        if not answer:
            raise ChildProcessError("the process that starts the workers has ended")
        return int(answer)

    def _cause_of_death(self, worker: _Worker) -> str:
        status = self._ask_starter({"pid": worker.pid})
        if status < 0:
            return f"its process was ended by signal {-status} ({signal.Signals(-status).name})"
        if worker.log is None:
            return f"its process ended with status {status}"
        lines = worker.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return f"its process ended with status {status} ({next(filter(None, map(str.strip, lines[::-1])), '')})"


# The functions below run in the starter and in the workers.


def _serve(control: socket.socket, start: Start) -> None:
    """Fork a worker for each connection that arrives, and report how a worker ended when asked."""
    while True:
        content, descriptors, *_ = socket.recv_fds(control, 1 << 16, 1)
        if not content:
            return
        request = json.loads(content)
        if not descriptors:
            status = os.waitstatus_to_exitcode(os.waitpid(request["pid"], 0)[1])
            control.sendall(str(status).encode())
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            _run_worker(start, descriptors[0], request["log"])
        os.close(descriptors[0])
        control.sendall(str(pid).encode())


def _run_worker(start: Start, descriptor: int, log: str | None) -> None:
    """Compute tasks until the connection closes, then end this process."""
    status = 1
    try:
        if log is not None:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(output, 1)
            os.dup2(output, 2)
        connection = socket.socket(fileno=descriptor)
        with connection, connection.makefile("rw") as lines, start(json.loads(lines.readline())) as compute:
            while line := lines.readline():
                lines.write(json.dumps(_answer(compute, json.loads(line))) + "\n")
                lines.flush()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _answer(compute: Callable[[Task], Any], task: Task) -> tuple[Any, tuple[str, str] | None]:
    try:
        return compute(task), None
    except GeoeqError as error:
        return None, (type(error).__name__, str(error))


if __name__ == "__main__":
    import_start = resolve(sys.argv[2])
    gc.freeze()  # the collector would write to every object, and so copy the memory that workers share
    with socket.socket(fileno=int(sys.argv[1])) as starter_control:
        _serve(starter_control, import_start)
