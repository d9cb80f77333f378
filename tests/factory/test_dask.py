"""Labels computed on a Dask cluster equal those of local processes, even if workers die."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ase import Atoms
from ase.io import write

from geoeq.cli.main import main
from geoeq.data.store import open_store
from geoeq.errors import DataError, InputError
from geoeq.factory import Rattle, Settings, Sources, make_set
from geoeq.factory import pool as pools
from geoeq.workers import dask as dask_workers
from geoeq.workers.dask import DaskPool

#: Argon, of which three atoms kill their process, four raise, and five wait as long as there is a file.
CALCULATOR = """
import os, time
from pathlib import Path
from ase.calculators.lj import LennardJones

class Fragile(LennardJones):
    def calculate(self, atoms=None, properties=None, system_changes=()):
        if len(atoms) == 3:
            print("this line is the last", flush=True)
            os._exit(7)
        if len(atoms) == 4:
            raise ZeroDivisionError("as it happens")
        while len(atoms) == 5 and Path(__file__).with_name("hold").exists():
            time.sleep(0.01)
        super().calculate(atoms, properties, system_changes)
"""

ARGON = {"sigma": 3.4, "epsilon": 0.01}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A method that crashes, from a module of the user."""
    (tmp_path / "fragile_calculator.py").write_text(CALCULATOR)
    monkeypatch.syspath_prepend(tmp_path)
    return Settings("fragile_calculator.Fragile", ARGON, rattle=Rattle(0.1, 2))


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two workers in threads of this process."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as found:
        yield found


@contextlib.contextmanager
def dask(command: str, *options: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A scheduler or worker in a process of its own, which is killed in the end."""
    line = [sys.executable, "-m", f"distributed.cli.dask_{command}", "--scheduler-file", str(folder / "scheduler.json")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / "dask.txt").open("ab") as file:
        process = subprocess.Popen([*line, *options], env=environment, stdout=file, stderr=file, cwd=folder, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def make_when_there(*arguments: Any, **options: Any) -> object:
    """Make a set as soon as the cluster has workers."""
    while True:
        try:
            return make_set(*arguments, **options)
        except InputError as error:
            if "has no workers" not in str(error):
                raise
            time.sleep(0.1)


def logs(folder: Path) -> list[Path]:
    """Of processes that were started."""
    return list(folder.glob(".work/log-*.txt"))


def wait_until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def argon(path: Path, *sizes: int) -> Sources:
    write(path, [Atoms(f"Ar{n}", [(3.8 * i, 0, 0) for i in range(n)]) for n in sizes])
    return Sources(structures=(path,))


def assert_same_set(one: Path, two: Path) -> None:
    ours, theirs = (open_store(folder / "structures", verify=True)[0] for folder in (one, two))
    assert {name: array.tobytes() for name, array in ours.items()} == {
        name: array.tobytes() for name, array in theirs.items()
    }
    for name in ("failures.csv", "molecules.csv"):
        assert (one / name).read_text() == (two / name).read_text(), name


@pytest.mark.slow
def test_labels_of_a_cluster_are_those_of_processes(tmp_path: Path, cluster: Any, fragile: Settings) -> None:
    sources = argon(tmp_path / "a.xyz", 2, 3, 4, 5, 6)
    summary = make_set(tmp_path / "dask", sources, fragile, dask=cluster.scheduler_address)
    assert summary.structures == 3 * 3
    assert [(failure.number, failure.reason) for failure in summary.failures] == [
        (1, "its process ended with status 7 (this line is the last), 2 times"),
        (2, "ZeroDivisionError: as it happens"),
    ]
    make_set(tmp_path / "here", sources, fragile, processes=1)
    assert_same_set(tmp_path / "dask", tmp_path / "here")
    assert not dask_workers._sessions  # no process is left behind


@pytest.mark.slow
def test_workers_that_die_and_a_scheduler_that_goes_lose_nothing(tmp_path: Path, fragile: Settings) -> None:
    pytest.importorskip("distributed")
    config = pytest.importorskip("dask.config")
    sources, folder, hold = argon(tmp_path / "a.xyz", 2, 5), tmp_path / "dask", tmp_path / "hold"
    first, second = (folder / ".work" / f"frames-file-0-{place}.npz" for place in (0, 1))
    hold.touch()
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(1) as thread:
        stack.enter_context(config.set({"distributed.comm.timeouts.connect": "2s"}))
        scheduler = stack.enter_context(dask("scheduler", "--port", "0", "--no-dashboard", folder=tmp_path))
        wait_until((tmp_path / "scheduler.json").exists)
        address = json.loads((tmp_path / "scheduler.json").read_text())["address"]
        options = ("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard")
        worker = stack.enter_context(dask(*options, folder=tmp_path))
        making = thread.submit(make_when_there, folder, sources, fragile, dask=address)
        wait_until(lambda: first.exists() and len(logs(folder)) == 1)
        done = first.stat().st_mtime_ns
        worker.kill()
        stack.enter_context(dask(*options, folder=tmp_path))
        wait_until(lambda: len(logs(folder)) == 2)  # another one has taken up the item
        assert not making.done()
        scheduler.kill()
        with pytest.raises(DataError, match=r"scheduler at tcp://.* has gone. Finished work is kept"):
            making.result(timeout=60)
    hold.unlink()
    assert first.stat().st_mtime_ns == done
    assert not second.exists()
    assert make_set(folder, sources, fragile, processes=1).structures == 2 * 3


@pytest.mark.slow
def test_machines_that_would_compute_other_numbers_are_refused(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, options = argon(tmp_path / "a.xyz", 2, 3), {"dask": cluster.scheduler_address}
    monkeypatch.setattr(pools, "programs", lambda method, smiles: [f"ase 3.{len(calls)}", calls.append(method)][:1])
    calls: list[object] = []
    with pytest.raises(InputError, match=r"The Dask worker on .* has ase 3\.1, not ase 3\.0: its numbers may differ"):
        make_set(tmp_path / "other", sources, Settings("lj"), **options)
    monkeypatch.setattr(pools, "programs", lambda method, smiles: [])
    monkeypatch.setattr(pools, "Path", UnseenWork)
    with pytest.raises(
        InputError, match=r"does not see /.*/unseen/\.work: all machines must see it under the same path"
    ):
        make_set(tmp_path / "unseen", sources, Settings("lj"), **options)


class UnseenWork(type(Path())):  # type: ignore[misc]
    """Paths on a machine that does not see the folder of work."""

    def is_dir(self) -> bool:
        return self.name != ".work" and super().is_dir()


class Fake:
    """A cluster's client, and the future of all that is submitted: it raises ``error``."""

    KilledWorker = type("KilledWorker", (Exception,), {})

    def __init__(self, error: Exception, threads: int = 1) -> None:
        self.error, self.threads = error, threads

    def nthreads(self) -> dict[str, int]:
        return {"tcp://worker": self.threads}

    def submit(self, *arguments: object, pure: bool) -> Fake:
        return self

    def add_done_callback(self, function: Callable[[object], None]) -> None:
        function(self)

    def result(self) -> None:
        raise self.error

    def release(self) -> None:
        pass

    def cancel(self) -> None:
        pass

    def run(self, *arguments: object, on_error: str) -> None:
        pass

    def close(self) -> None:
        self.threads = 0


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fake], Fake]:
    """Have a fake in place of any cluster."""

    def put(fake: Fake) -> Fake:
        package = SimpleNamespace(Client=lambda *_, **__: fake, KilledWorker=Fake.KilledWorker)
        monkeypatch.setattr("geoeq.workers.dask.import_extra", lambda module, extra: package)
        return fake

    return put


def test_an_item_that_kills_worker_after_worker_is_a_failure(tmp_path: Path, faked: Any) -> None:
    fake = faked(Fake(Fake.KilledWorker("it died 4 times")))
    with pytest.raises(DataError, match=r"it ended one Dask worker after another \(it died 4 times\), 2"):
        make_set(tmp_path / "set", argon(tmp_path / "a.xyz", 2), Settings("lj"), dask="tcp://there:8786")
    assert fake.threads == 0  # the cluster was left


def test_a_cluster_without_geoeq_or_workers_is_reported(tmp_path: Path, faked: Any) -> None:
    sources, options = argon(tmp_path / "a.xyz", 2), {"dask": "tcp://there:8786"}
    faked(Fake(ModuleNotFoundError("No module named 'geoeq'")))
    with pytest.raises(InputError, match=r"Dask at tcp://there:8786 cannot load its tasks \(No module named 'geoeq'\)"):
        make_set(tmp_path / "set", sources, Settings("lj"), **options)
    faked(Fake(ValueError(), threads=0))
    with pytest.raises(InputError, match="has no workers; start some: dask worker tcp://there:8786"):
        make_set(tmp_path / "set", sources, Settings("lj"), **options)


def test_a_cluster_that_stays_without_workers_is_given_up(faked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = faked(Fake(ValueError()))
    pool = DaskPool("tcp://there:8786", "module:function", {})
    monkeypatch.setattr("geoeq.workers.dask._CHECK_INTERVAL", 0.0)
    pool.check_workers()
    fake.nthreads = dict  # type: ignore[method-assign]
    pool.check_workers()
    monkeypatch.setattr("geoeq.workers.dask._LONGEST_IDLE", 0.0)
    with pytest.raises(DataError, match=r"has had no workers for 0 minutes. Finished work is kept"):
        pool.check_workers()


def test_dask_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    argon(tmp_path / "a.xyz", 2)
    command = ["data", "make", "--structures", str(tmp_path / "a.xyz"), "--method", "lj", "-o", str(tmp_path / "set")]
    command += ["--dask", "tcp://127.0.0.1:9"]
    assert main([*command, "--processes", "2"]) == 2
    assert "leave out --processes, or --dask" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(command) == 2
    assert re.search(r"Install it with: .*pip install .*\[dask\]", capsys.readouterr().err)
