"""Files: atomic writes, checksums, saved training states, and logs that are appended to."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from geoeq.errors import CheckpointError, InputError

__all__ = [
    "STATE_VERSION",
    "AppendLog",
    "atomic_write",
    "file_digest",
    "file_sha256",
    "load_state",
    "publish",
    "read_log",
    "replacing",
    "save_state",
    "write_text",
]


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes ``path`` if nothing goes wrong and vanishes if something does.

    A reader, or a process that is killed, finds the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_digest(path: Path, kind: str) -> str:
    """The checksum of a file, "sha256" or "md5", in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    return file_digest(path, "sha256")


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of ``folder`` at the end, or is removed if something is raised."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield temporary
        publish(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def publish(temporary: Path, folder: Path) -> None:
    """Put the whole cache ``temporary`` in the place of ``folder``."""
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)


#: Version of the files that ``save_state`` writes.
STATE_VERSION = 2


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, and lists and dicts of those), whole or not at all."""
    with atomic_write(path) as temporary:
        torch.save({"version": STATE_VERSION, **state}, temporary)


def load_state(path: Path) -> dict[str, Any]:
    """The state in ``path``, on the CPU.

    Raises:
        CheckpointError: the file is truncated, altered, or of another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or altered, so this run cannot go on. Delete its folder to start again."
        ) from error
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise CheckpointError(f"{path} is of another version of geoeq; finish the run with that version.")
    return state


class AppendLog:
    """Appends text so that a kill loses the last piece at the most. It is locked while it is open.

    Args:
        path: the file; it is made if it is not there.
        size: bytes that are kept, of what it holds.

    Raises:
        CheckpointError: it is shorter than that.
        InputError: another process appends to it.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        there = path.stat().st_size if path.is_file() else 0
        if there < size:
            raise CheckpointError(
                f"{path} has {there} bytes and had {size} when the state of the run was written, so this run cannot go "
                "on. Start again with --again."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if path.is_file() else "w+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):  # other errors are those of file systems without locks
                self._file.close()
                raise InputError(
                    f"Another process is writing {path}: the same simulation runs already. Wait for it, or choose "
                    "another folder with --output FOLDER."
                ) from error
        self._file.truncate(size)
        self._file.seek(size)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def append(self, text: str) -> None:
        """Add text, and hand it to the system, where it survives the end of this process."""
        self._file.write(text.encode("utf-8"))
        self._file.flush()

    def sync(self) -> None:
        """Wait until all is on the disk, where it survives the end of the machine."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, float]]:
    """The rows of a log; empty cells are left out, and so is a last line that was cut off."""
    with path.open(encoding="utf-8", newline="") as file:
        lines = file.read().split("\n")[:-1]
    rows = csv.reader(lines)
    columns = next(rows, [])
    return [
        {
            name: float(cell) if "." in cell or not cell.lstrip("-").isdigit() else int(cell)
            for name, cell in cells
            if cell
        }
        for cells in (list(zip(columns, row)) for row in rows if len(row) == len(columns))
    ]
