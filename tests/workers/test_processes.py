"""Worker processes: answers, errors, deaths, logs, and that none is left behind."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geoeq.errors import DataError
from geoeq.workers.processes import WorkerPool

TASKS = """
import os, signal, sys, time
from contextlib import contextmanager
from geoeq.errors import DataError

@contextmanager
def start(setup):
    def compute(task):
        if "raise" in task:
            raise DataError(task["raise"])
        if "fail" in task:
            print("a line of the log", flush=True)
            raise ZeroDivisionError("as it happens")
        if "signal" in task:
            os.kill(os.getpid(), task["signal"])
        time.sleep(task.get("sleep", 0.0))
        return {"pid": os.getpid(), "sum": setup["offset"] + task["number"], "threads": os.environ["OMP_NUM_THREADS"]}
    yield compute
"""


def assert_ended(*pids: int) -> None:
    """Wait until the processes, which were killed, have gone."""
    until = time.monotonic() + 60
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "toy_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "toy_tasks:start"


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_tasks_run_in_parallel_and_workers_are_reused(target):
    with WorkerPool(target, {"offset": 10}, 2) as pool, ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(pool.run, [{"number": n, "sleep": 0.05} for n in range(8)]))
    assert [answer["sum"] for answer in answers] == [10 + n for n in range(8)]
    assert {answer["threads"] for answer in answers} == {"1"}
    pids = {answer["pid"] for answer in answers}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids
    assert_ended(*pids)


def test_errors_of_geoeq_are_raised_here_and_others_end_the_worker(target, tmp_path):
    with WorkerPool(target, {"offset": 0}, 1, tmp_path / "log") as pool:
        first = pool.run({"number": 1})["pid"]
        with pytest.raises(DataError, match=r"^what is wrong$"):
            pool.run({"raise": "what is wrong"})
        assert pool.run({"number": 2})["pid"] == first
        with pytest.raises(ChildProcessError, match=r"ended with status 1 \(ZeroDivisionError: as it happens\)"):
            pool.run({"fail": True})
        with pytest.raises(ChildProcessError, match=r"its process was ended by signal 9 \(SIGKILL\)"):
            pool.run({"signal": signal.SIGKILL})
        assert pool.run({"number": 3})["sum"] == 3
    assert "a line of the log" in "".join(path.read_text() for path in tmp_path.glob("log-*.txt"))


def test_closing_ends_tasks_that_are_being_computed(target):
    pool = WorkerPool(target, {"offset": 0}, 1)
    pid = pool.run({"number": 0})["pid"]
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(pool.run, {"number": 1, "sleep": 600})
        time.sleep(0.1)
        pool.close()
        with pytest.raises(ChildProcessError):
            running.result(timeout=60)
    pool.close()
    assert_ended(pid)
    with pytest.raises(ChildProcessError):
        pool.run({"number": 2})


def test_a_module_that_cannot_be_imported(tmp_path):
    with WorkerPool("no_such_module:start", {}, 1) as pool, pytest.raises(ChildProcessError, match="has ended"):
        pool.run({"number": 1})
