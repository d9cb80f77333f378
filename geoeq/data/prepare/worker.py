"""Processes that read shards, asked and answering in lines of JSON.

One subprocess imports what is needed and forks into all of them, so that they share most of their memory. They are no
children of multiprocessing, which would run the user's script again, or fork the threads of torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, astuple
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import geoeq.errors
from geoeq.data.arrays import checked_arrays
from geoeq.data.card import Card
from geoeq.data.prepare.writer import StoreWriter
from geoeq.data.records import Shard, ShardedReader
from geoeq.data.store import INDEX
from geoeq.errors import DataError
from geoeq.files import atomic_folder

__all__ = ["Workers", "write_part"]


def write_part(card: Card, reader: ShardedReader, files: Mapping[str, Path], shard: Shard, folder: Path) -> None:
    """Read one shard and write it as the cache ``folder``, unless it is there.

    Raises:
        GeoeqError: the shard cannot be read, or there is nothing or something impossible in it.
    """
    if (folder / INDEX).exists():
        return
    with atomic_folder(folder) as temporary, StoreWriter(temporary) as writer:
        count = 0
        for records in reader.read_shard(files, shard):
            writer.append(checked_arrays(card, records, f"{card.name}: {shard}", count))
            count += len(records.ptr) - 1
        if count == 0:
            raise DataError(f"{files[shard.file]}: there is not one structure in {shard}.")
        writer.finish({})


class _Worker(NamedTuple):
    """The ends of the pipes to a process: it is asked through one, and answers through the other."""

    ask: IO[str]
    answer: IO[str]


class Workers:
    """Some processes to which shards can be given; a context manager that ends them.

    Args:
        card: the data set.
        sample: take only the records that come with geoeq.
        files: name -> path.
        count: how many processes.

    Attributes:
        count: the same.
    """

    def __init__(self, card: Card, sample: bool, files: Mapping[str, Path], count: int) -> None:
        self.count = count
        pipes = [(*os.pipe(), *os.pipe()) for _ in range(count)]
        theirs = [(asked, answer) for asked, _, _, answer in pipes]
        begin = {"card": asdict(card), "sample": sample, "files": {name: str(path) for name, path in files.items()}}
        # Its modules are found where ours are; one thread each, as there is one process a core.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self._template = subprocess.Popen(
            [sys.executable, "-m", "geoeq.data.prepare.worker_process"],
            stdin=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
            pass_fds=[end for ends in theirs for end in ends],
            start_new_session=True,  # so that all can be ended at once
        )
        for end in [end for ends in theirs for end in ends]:
            os.close(end)
        self._all = [_Worker(os.fdopen(ask, "w"), os.fdopen(answer)) for _, ask, answer, _ in pipes]
        self._idle: queue.Queue[_Worker] = queue.Queue()
        for worker in self._all:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(count)
        if self._template.stdin:
            self._template.stdin.write(json.dumps(begin | {"pipes": theirs}))
            self._template.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._template.pid, signal.SIGKILL)
        self._template.wait()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._all:
            with contextlib.suppress(OSError):
                worker.ask.close()
            worker.answer.close()

    def submit(self, shard: Shard, folder: Path) -> Future[None]:
        """Have ``shard`` written as the cache ``folder``; the result is None, or what ``write_part`` raises."""
        return self._threads.submit(self._ask, shard, folder)

    def _ask(self, shard: Shard, folder: Path) -> None:
        worker = self._idle.get()
        try:
            with contextlib.suppress(OSError):  # one that is gone is noticed by its silence
                worker.ask.write(json.dumps({"shard": astuple(shard), "folder": str(folder)}) + "\n")
                worker.ask.flush()
            answer = worker.answer.readline()
        finally:
            self._idle.put(worker)
        if not answer:
            raise DataError(
                f"The process that read {shard} was ended, perhaps for want of memory. What was read before is kept: "
                "try again to go on, with fewer processes."
            )
        error = json.loads(answer)
        if error:
            kind = getattr(geoeq.errors, error["kind"], DataError)
            raise kind(error["message"])
