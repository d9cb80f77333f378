"""Shards of a data set written as small caches, by workers of ``geoeq.workers`` or by this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any, cast

from geoeq.data.arrays import checked_arrays
from geoeq.data.card import Card
from geoeq.data.preparation.reading import make_reader
from geoeq.data.preparation.writer import StoreWriter
from geoeq.data.records import Shard, ShardedReader
from geoeq.data.store import INDEX
from geoeq.errors import DataError
from geoeq.files import atomic_folder
from geoeq.typed import parse
from geoeq.workers.dask import DaskPool
from geoeq.workers.processes import Task, WorkerPool

__all__ = ["open_pool", "shard_task", "start_writing", "write_shard"]


def write_shard(card: Card, reader: ShardedReader, files: Mapping[str, Path], shard: Shard, folder: Path) -> None:
    """Read one shard and write it as the cache ``folder``, unless that exists.

    Raises:
        GeoeqError: the shard cannot be read, is empty, or contains an invalid structure.
    """
    if (folder / INDEX).exists():
        return
    with atomic_folder(folder) as temporary, StoreWriter(temporary) as writer:
        count = 0
        for records in reader.read_shard(files, shard):
            writer.append(checked_arrays(card, records, f"{card.name}: {shard}", count))
            count += len(records.ptr) - 1
        if count == 0:
            raise DataError(f"{files[shard.file]}: {shard} contains no structures.")
        writer.finish({})


def open_pool(
    card: Card, sample: bool, files: Mapping[str, Path], processes: int, dask: str | None
) -> WorkerPool | DaskPool:
    """Start workers that write shards: processes of this machine, or those of the Dask scheduler at ``dask``.

    Raises:
        InputError: no scheduler answers at the address, or it has no workers.
        MissingExtraError: the extra "dask" is not installed.
    """
    target = f"{__name__}:{start_writing.__name__}"
    setup = {
        "card": asdict(card),
        "sample": sample,
        "files": {name: str(path.resolve()) for name, path in files.items()},
    }
    return WorkerPool(target, setup, processes) if dask is None else DaskPool(dask, target, setup, ahead=2)


def shard_task(shard: Shard, folder: Path) -> Task:
    """Return the task of writing ``shard`` as the cache ``folder``."""
    return {"shard": astuple(shard), "output": str(folder.resolve())}


@contextmanager
def start_writing(setup: Mapping[str, Any]) -> Iterator[Callable[[Task], None]]:
    """Yield the function that computes the tasks of ``shard_task`` in a worker."""
    card = parse(Card, setup["card"], "card")
    reader = cast(ShardedReader, make_reader(card, setup["sample"]))
    files = {name: Path(path) for name, path in setup["files"].items()}
    yield lambda task: write_shard(card, reader, files, Shard(*task["shard"]), Path(task["output"]))
