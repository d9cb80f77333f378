"""Chunks of records written into a cache as they come, in bounded memory; shards in several processes, with resume."""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from geoeq.data.arrays import checked_arrays
from geoeq.data.card import Card
from geoeq.data.prepare.dask_workers import DaskWorkers
from geoeq.data.prepare.worker import Workers, write_part
from geoeq.data.prepare.writer import StoreWriter
from geoeq.data.records import Records, Shard, ShardedReader
from geoeq.data.store import open_store
from geoeq.errors import DataError
from geoeq.files import atomic_folder, publish

__all__ = ["write_chunks", "write_shards"]

#: The folder of what is complete, beside those of the shards that wait for the ones before them.
_WHOLE = "whole"

#: With these, all processes together stay below 1 GB; each further one takes some 70 MB.
_MOST_PROCESSES = 4

#: Shards that are read ahead of the one that is written next, for each process.
_AHEAD = 2


def write_chunks(folder: Path, card: Card, chunks: Iterator[Records], details: Mapping[str, Any]) -> None:
    """Write ``chunks`` as the cache ``folder``, all or nothing.

    Raises:
        GeoeqError: a chunk cannot be read, is unlike the others, or there is something impossible in it.
    """
    with atomic_folder(folder) as temporary, StoreWriter(temporary) as writer:
        count = 0
        for records in chunks:
            writer.append(checked_arrays(card, records, card.name, count))
            count += len(records.ptr) - 1
        if count == 0:
            raise DataError(f"{card.name}: there is not one structure in it.")
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
    """Write all shards as the cache ``folder``. What was read before a kill or an error is kept and gone on with.

    Args:
        folder: the cache.
        card: the data set.
        sample: take only the records that come with geoeq.
        reader: that of the card.
        files: name -> path.
        details: for the index, beside the number of structures of each part (``parts``).
        processes: that read at once; None for as many as there are cores, up to four.
        dask: the address of a scheduler of Dask, whose workers read in place of processes here.

    Raises:
        GeoeqError: a shard cannot be read, is unlike the others, or there is something impossible in it.
    """
    shards = list(reader.shards(files))
    if not shards:
        raise DataError(f"{card.name}: there is not one structure in {', '.join(map(str, files.values()))}.")
    work = folder.with_name(f".{folder.name}-work")
    with _go_on(work, {"shards": [astuple(shard) for shard in shards], "details": details}) as writer:
        done = len(writer.committed)
        for number in range(done):
            shutil.rmtree(work / str(number), ignore_errors=True)
        with tqdm(total=len(shards), initial=done, unit="shard", desc=card.name, disable=None) as bar:
            for number in _parts(card, sample, reader, files, shards, work, done, processes, dask):
                _append(writer, work / str(number), files, shards[number])
                bar.update()
        parts: dict[str, int] = {}
        for part, count in writer.committed:
            parts[part] = parts.get(part, 0) + count
        writer.finish({**details, "parts": parts})
    publish(work / _WHOLE, folder)
    shutil.rmtree(work)


def _append(writer: StoreWriter, part: Path, files: Mapping[str, Path], shard: Shard) -> None:
    arrays, _ = open_store(part, verify=True)
    try:
        writer.append(arrays)
    except DataError as error:
        raise DataError(f"{files[shard.file]}: {shard}: {error}") from error
    writer.commit([shard.part or shard.file, len(arrays["ptr"]) - 1])
    shutil.rmtree(part)


def _go_on(work: Path, belongs: Mapping[str, Any]) -> StoreWriter:
    """The writer of what is in ``work``, if that is of the same shards and whole, else of nothing."""
    note, text = work / "belongs.json", json.dumps(belongs)
    if note.is_file() and note.read_text(encoding="utf-8") == text:
        try:
            return StoreWriter(work / _WHOLE)
        except DataError:
            pass  # it was altered: all is read again
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    writer = StoreWriter(work / _WHOLE)
    note.write_text(text, encoding="utf-8")
    return writer


def _parts(
    card: Card,
    sample: bool,
    reader: ShardedReader,
    files: Mapping[str, Path],
    shards: Sequence[Shard],
    work: Path,
    first: int,
    processes: int | None,
    dask: str | None,
) -> Iterator[int]:
    """The numbers of the shards from ``first`` on, each when it is written in ``work``."""
    count = min(processes or min(_cores(), _MOST_PROCESSES), len(shards) - first)
    if count <= 1 and dask is None:
        for number in range(first, len(shards)):
            write_part(card, reader, files, shards[number], work / str(number))
            yield number
        return
    waiting: deque[tuple[int, Future[None]]] = deque()
    numbers = iter(range(first, len(shards)))
    with Workers(card, sample, files, count) if dask is None else DaskWorkers(card, sample, files, dask) as workers:
        count = workers.count
        while True:
            for number in islice(numbers, count * _AHEAD - len(waiting)):
                waiting.append((number, workers.submit(shards[number], work / str(number))))
            if not waiting:
                return
            number, part = waiting.popleft()
            part.result()
            yield number


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
