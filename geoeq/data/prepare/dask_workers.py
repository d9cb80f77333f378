"""Shards that are read by the workers of a Dask cluster, on other machines too."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, astuple
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from geoeq.data.card import Card
from geoeq.data.prepare.reading import make_reader
from geoeq.data.prepare.worker import write_part
from geoeq.data.records import Shard, ShardedReader
from geoeq.data.store import INDEX
from geoeq.errors import DataError
from geoeq.typed import parse
from geoeq.workers.dask import Cluster

__all__ = ["DaskWorkers"]


class DaskWorkers:
    """The workers of a cluster, to which shards can be given; a context manager that leaves the cluster.

    They have geoeq, and see the files and the folder of the cache under the same paths.

    Args:
        card: the data set.
        sample: take only the records that come with geoeq.
        files: name -> path.
        address: of the scheduler, as in ``tcp://HOST:8786``.

    Attributes:
        count: threads of all workers: so many shards are read at once.

    Raises:
        InputError: no scheduler answers there, or it has no workers.
        MissingExtraError: the extra "dask" is not installed.
    """

    def __init__(self, card: Card, sample: bool, files: Mapping[str, Path], address: str) -> None:
        self._cluster = Cluster(address)
        self.count = self._cluster.count
        absolute = {name: str(path.resolve()) for name, path in files.items()}
        self._begin = json.dumps({"card": asdict(card), "sample": sample, "files": absolute})
        self._threads = ThreadPoolExecutor(2 * self.count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.__exit__(kind, error, trace)
        self._threads.shutdown(cancel_futures=True)

    def submit(self, shard: Shard, folder: Path) -> Future[None]:
        """Have ``shard`` written as the cache ``folder``; the result is None, or what ``write_part`` raises."""
        return self._threads.submit(self._ask, shard, folder)

    def _ask(self, shard: Shard, folder: Path) -> None:
        task = self._cluster.submit(_write, self._begin, astuple(shard), str(folder.resolve()))
        try:
            task.result(folder / INDEX)
        except ChildProcessError as error:
            raise DataError(
                f"{shard} could not be read: {error}, perhaps for want of memory. What was read before is kept: the "
                "same command goes on."
            ) from error


def _write(begin: str, shard: tuple[Any, ...], folder: str) -> None:
    card, sample, files = _begun(begin)
    write_part(card, cast(ShardedReader, make_reader(card, sample)), files, Shard(*shard), Path(folder))


@functools.lru_cache(maxsize=4)
def _begun(begin: str) -> tuple[Card, bool, dict[str, Path]]:
    found = json.loads(begin)
    files = {name: Path(path) for name, path in found["files"].items()}
    return parse(Card, found["card"], "card"), found["sample"], files
