"""Files: atomic writes, checksums, saved states, and logs that are appended to."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import pickle
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from geoeq.errors import CheckpointError, DataError, GeoeqError, InputError

__all__ = [
    "STATE_VERSION",
    "AppendLog",
    "atomic_folder",
    "atomic_write",
    "check_regular",
    "file_digest",
    "file_sha256",
    "load_state",
    "publish",
    "read_log",
    "remove_stale",
    "save_state",
    "write_json",
    "write_text",
]


_KINDS = {stat.S_IFIFO: "a pipe (fifo)", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def check_regular(path: Path, error: type[GeoeqError] = DataError) -> None:
    """Check, without opening it, that ``path`` is not a pipe, socket or device, which may have no end.

    Files, folders and missing files pass.

    Args:
        path: path of a file to be read.
        error: class of the exception.

    Raises:
        GeoeqError: it is neither a file nor a folder.
    """
    try:
        kind = _KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):  # missing, or an impossible name: whoever opens the file says so
        return
    if kind is not None:
        raise error(f"{path} is {kind}, which is not read. Save its content in a file.")


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it is renamed to ``path`` on success and deleted after an error.

    Readers find the old file or the new one, never a part of it, even if the process is killed or several processes
    write the same file. Missing parent folders are created. Temporary files of killed processes are deleted.

    Raises:
        OSError: the file cannot be written, for example because the disk is full. The error names the file, and it
            stands for those of torch and safetensors, too.
    """
    path = Path(path)
    temporary = _new_temporary(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        if not isinstance(error, OSError) and _WRITE_ERRORS.search(str(error)):
            reason = str(error).partition("\n")[0]
            raise OSError(f"{path} could not be written; is the disk full? ({reason})") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


#: Parts of the messages of torch and safetensors when a file cannot be written; they have no exception class for it.
_WRITE_ERRORS = re.compile(r"inline_container|PytorchStreamWriter|I/O error|os error \d+")

#: End of the names of temporary files, with the machine and the process that writes: processes of others may live.
_HOST = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname()) or "host"
_TEMPORARY = re.compile(rf"\..*-{_HOST}-(\d+)-[a-z0-9_]{{8}}(\.[^.]*)?")
_swept: set[Path] = set()


def remove_stale(folder: str | Path) -> None:
    """Delete the temporary files and folders in ``folder`` that killed processes of this machine have left."""
    folder = Path(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(path.name)
        if match is None or _is_running(int(match[1])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):  # of another user
        return True
    return True


def _new_temporary(path: Path) -> Path:
    """Return a temporary path beside ``path``; stale ones are deleted once per process and folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent not in _swept:
        _swept.add(path.parent)
        with contextlib.suppress(OSError):
            remove_stale(path.parent)
    return path.with_name(f".{path.stem}-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` to ``path`` atomically, in UTF-8."""
    path = Path(path)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any, *, allow_nan: bool = True) -> None:
    """Write ``value`` to ``path`` atomically, as indented JSON.

    Raises:
        ValueError: a number is NaN or infinite, and ``allow_nan`` is False.
    """
    path = Path(path)
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=allow_nan) + "\n")


def file_digest(path: str | Path, kind: str) -> str:
    """Return the checksum of a file, "sha256" or "md5", in hexadecimal.

    Raises:
        DataError: it is a pipe or device.
    """
    path = Path(path)
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal."""
    path = Path(path)
    return file_digest(path, "sha256")


@contextlib.contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``folder`` on success and is deleted after an error."""
    folder = Path(folder)
    temporary = _new_temporary(folder)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
        publish(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def publish(temporary: str | Path, folder: str | Path) -> None:
    """Rename the complete folder ``temporary`` to ``folder``, which is deleted if it exists."""
    temporary = Path(temporary)
    folder = Path(folder)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)


#: Version of the files written by ``save_state``.
STATE_VERSION = 2


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers and text, in lists and dicts) atomically."""
    path = Path(path)
    with atomic_write(path) as temporary:
        torch.save({"version": STATE_VERSION, **state}, temporary)


def load_state(path: str | Path) -> dict[str, Any]:
    """Return the state saved in ``path``, on the CPU.

    Raises:
        CheckpointError: the file is truncated, altered, or of another version.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or altered, so this run cannot be resumed. Delete its folder to start again."
        ) from error
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise CheckpointError(
            f"{path} was written by another version of geoeq; finish the run with that version, or delete its folder "
            "to start again."
        )
    return state


class AppendLog:
    """A text file that is appended to and locked while open; a kill loses at most the last piece of text.

    Args:
        path: path of the file, which is created if it does not exist.
        size: number of bytes to keep of an existing file.

    Raises:
        CheckpointError: the file is shorter than ``size``.
        InputError: another process has the file open.
    """

    def __init__(self, path: str | Path, size: int = 0) -> None:
        path = Path(path)
        present = path.stat().st_size if path.is_file() else 0
        if present < size:
            raise CheckpointError(
                f"{path} has {present} bytes but had {size} when the state of the run was saved, so this run cannot be "
                "resumed. Start again with --again."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("r+b" if path.is_file() else "w+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):  # other errors come from file systems without locks
                self._file.close()
                raise InputError(
                    f"Another process is writing {path}: the same simulation is already running. Wait until it ends, "
                    "or choose another folder with --output FOLDER."
                ) from error
        self._file.truncate(size)
        self._file.seek(size)

    @property
    def size(self) -> int:
        """Number of bytes written so far."""
        return self._file.tell()

    def append(self, text: str) -> None:
        """Append text and hand it to the operating system, so that it survives the end of this process.

        Raises:
            OSError: the text cannot be written, for example because the disk is full. The error names the file.
        """
        try:
            self._file.write(text.encode("utf-8"))
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._file.name) from error

    def sync(self) -> None:
        """Wait until everything is on disk, so that it survives a crash of the machine."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file and release its lock; text that could not be written is dropped."""
        with contextlib.suppress(OSError):  # ``append`` has raised it already, and closes the file all the same
            self._file.close()


def read_log(path: str | Path) -> list[dict[str, float]]:
    """Return the rows of a CSV log without empty cells; a truncated last line is ignored."""
    path = Path(path)
    with path.open(encoding="utf-8", newline="") as file:
        lines = file.read().split("\n")[:-1]
    rows = csv.reader(lines)
    columns = next(rows, [])
    return [
        {
            name: float(cell) if "." in cell or not cell.lstrip("-").isdecimal() else int(cell)
            for name, cell in cells
            if cell
        }
        for cells in (list(zip(columns, row)) for row in rows if len(row) == len(columns))
    ]
