"""Write records into a cache as they are read, in bounded memory; read shards in parallel and resume after a kill."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from geoeq.data.arrays import checked_arrays
from geoeq.data.card import Card
from geoeq.data.preparation.shards import open_pool, shard_task, write_shard
from geoeq.data.preparation.writer import StoreWriter
from geoeq.data.records import Records, Shard, ShardedReader
from geoeq.data.store import open_store
from geoeq.errors import DataError
from geoeq.files import atomic_folder, publish, write_text
from geoeq.workers.processes import available_cores

__all__ = ["write_chunks", "write_shards"]

#: The folder of the cache that grows, beside those of the shards that wait for earlier ones.
_WHOLE = "whole"

#: Up to this number, all processes together need less than 1 GB; each further one needs about 70 MB.
_MOST_PROCESSES = 4

#: Number of shards, for each process, that are read before they are needed.
_AHEAD = 2


def write_chunks(folder: Path, card: Card, chunks: Iterator[Records], details: Mapping[str, Any]) -> None:
    """Write ``chunks`` as the cache ``folder``, all or nothing.

    Raises:
        GeoeqError: a chunk cannot be read, has other arrays than the first, or contains an invalid structure.
    """
    with atomic_folder(folder) as temporary, StoreWriter(temporary) as writer:
        count = 0
        for records in chunks:
            writer.append(checked_arrays(card, records, card.name, count))
            count += len(records.ptr) - 1
        if count == 0:
            raise DataError(f"{card.name}: its files contain no structures.")
        writer.finish(details)


def write_shards(
    folder: Path,
    card: Card,
    sample: bool,
    reader: ShardedReader,
    files: Mapping[str, Path],
    details: Mapping[str, Any],
    processes: int | None = None,
    dask: str | None = None,
) -> None:
    """Write all shards as the cache ``folder``, resuming after the shards that an interrupted run has finished.

    Args:
        folder: the cache to write.
        card: the card of the data set.
        sample: whether to read only the sample that is shipped with geoeq.
        reader: the reader of the card.
        files: file name -> path.
        details: content of the index; the number of structures of each part is added as ``parts``.
        processes: number of processes that read; None for the number of cores, at most four.
        dask: address of a Dask scheduler whose workers read instead of processes on this machine.

    Raises:
        GeoeqError: a shard cannot be read, has other arrays than the first, or contains an invalid structure.
    """
    shards = list(reader.shards(files))
    if not shards:
        raise DataError(f"{card.name}: {', '.join(map(str, files.values()))}: there are no structures in the files.")
    work = folder.with_name(f".{folder.name}-work")

    def in_order(first: int) -> Generator[int]:
        """Yield the numbers of the shards from ``first`` on, each as soon as it is written in ``work``."""
        count = min(processes or min(available_cores(), _MOST_PROCESSES), len(shards) - first)
        if count <= 1 and dask is None:
            for number in range(first, len(shards)):
                write_shard(card, reader, files, shards[number], work / str(number))
                yield number
            return
        with open_pool(card, sample, files, count, dask) as pool, ThreadPoolExecutor(pool.count) as threads:

            def write(number: int) -> None:
                try:
                    pool.run(shard_task(shards[number], work / str(number)))
                except ChildProcessError as error:
                    raise DataError(
                        f"{shards[number]} could not be read: {error}, perhaps because memory ran out. Finished work "
                        "is kept: run the same command with fewer processes to resume."
                    ) from error

            try:
                yield from _ahead(write, range(first, len(shards)), threads, pool.count * _AHEAD)
            finally:
                pool.close()  # ends the workers, and so the threads that wait for them
                threads.shutdown(cancel_futures=True)

    with _resume(work, {"shards": [astuple(shard) for shard in shards], "details": details}) as writer:
        done = len(writer.committed)
        for number in range(done):
            shutil.rmtree(work / str(number), ignore_errors=True)
        bar = tqdm(total=len(shards), initial=done, unit="shard", desc=card.name, disable=None)
        with bar, closing(in_order(done)) as numbers:
            for number in numbers:
                _append(writer, work / str(number), files, shards[number])
                bar.update()
        parts: dict[str, int] = {}
        for part, count in writer.committed:
            parts[part] = parts.get(part, 0) + count
        writer.finish({**details, "parts": parts})
    publish(work / _WHOLE, folder)
    shutil.rmtree(work)


def _ahead(write: Callable[[int], None], numbers: range, threads: ThreadPoolExecutor, most: int) -> Iterator[int]:
    """Yield ``numbers`` in their order, each once it is written; up to ``most`` of them are in progress or waiting."""
    waiting: deque[tuple[int, Future[None]]] = deque()
    remaining = iter(numbers)
    while True:
        for number in islice(remaining, most - len(waiting)):
            waiting.append((number, threads.submit(write, number)))
        if not waiting:
            return
        number, written = waiting.popleft()
        written.result()
        yield number


def _append(writer: StoreWriter, part: Path, files: Mapping[str, Path], shard: Shard) -> None:
    arrays, _ = open_store(part, verify=True)
    try:
        writer.append(arrays)
    except DataError as error:
        raise DataError(f"{files[shard.file]}: {shard}: {error}") from error
    writer.commit([shard.part or shard.file, len(arrays["ptr"]) - 1])
    shutil.rmtree(part)


def _resume(work: Path, belongs: Mapping[str, Any]) -> StoreWriter:
    """Return the writer of the cache in ``work`` if it is intact and of the same shards, else of an empty one."""
    note, text = work / "belongs.json", json.dumps(belongs)
    if note.is_file() and note.read_text(encoding="utf-8") == text:
        try:
            return StoreWriter(work / _WHOLE)
        except DataError:
            pass  # it was altered: everything is read again
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    writer = StoreWriter(work / _WHOLE)
    write_text(note, text)
    return writer
