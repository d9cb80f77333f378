"""A plain file out of a compressed one or out of an archive, for formats that are not read as a stream."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path
from typing import IO, cast

from geoeq.data.containers.archive import open_members
from geoeq.data.containers.text import SUFFIXES
from geoeq.errors import DataError

__all__ = ["is_archive", "member_text", "unpacked", "unpacked_folder"]

#: A file may unpack to this many bytes, and this many times its own size; arrays of numbers compress some twice.
_FREE_BYTES, _RATIO = 1 << 26, 100
_BLOCK = 1 << 20


def is_archive(path: Path) -> bool:
    """Whether it is a tar or zip file, by its name."""
    return path.name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"))


@contextmanager
def unpacked(path: Path, member: str | None = None) -> Iterator[Path]:
    """A plain file with the content of ``path``, or of a member of it if that is an archive; removed afterwards.

    Raises:
        DataError: it is truncated or altered, not safe to unpack, or has no such member.
    """
    if not is_archive(path) and path.suffix.lower() not in SUFFIXES:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="geoeq-") as folder:
        plain = Path(folder) / "file"
        with plain.open("wb") as file:
            if is_archive(path):
                _copy_member(path, member, file)
            else:
                _decompress(path, file)
        yield plain


@contextmanager
def unpacked_folder(path: Path, below: str) -> Iterator[Path]:
    """A folder with the members of the archive ``path`` whose names begin with ``below``; removed afterwards.

    Raises:
        DataError: it is truncated or altered, not safe to unpack, or has no such member.
    """
    with tempfile.TemporaryDirectory(prefix="geoeq-") as folder:
        count = 0
        for name, content in open_members(path):
            if not name.removeprefix("./").startswith(below):
                continue
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file, _BLOCK)
            count += 1
        if not count:
            raise DataError(f"{path}: there is no '{below}' in it.")
        yield Path(folder)


def member_text(path: Path, member: str) -> str:
    """The text of a member of an archive.

    Raises:
        DataError: it is truncated or altered, not safe to unpack, or has no such member.
    """
    with unpacked(path, member) as plain:
        return plain.read_text(encoding="utf-8", errors="replace")


def _copy_member(path: Path, member: str | None, file: IO[bytes]) -> None:
    if member is None:
        raise DataError(f"{path} is an archive; the option 'member' should say which file in it is meant.")
    names = []
    for name, content in open_members(path):
        if name.removeprefix("./") == member:
            shutil.copyfileobj(content, file, _BLOCK)
            return
        names.append(name)
    raise DataError(f"{path}: there is no '{member}' in it, but {', '.join(sorted(names)[:20]) or 'nothing'}.")


def _decompress(path: Path, file: IO[bytes]) -> None:
    limit = _FREE_BYTES + _RATIO * path.stat().st_size
    try:
        with cast(IO[bytes], SUFFIXES[path.suffix.lower()](path, "rb")) as source:
            while block := source.read(_BLOCK):
                limit -= len(block)
                if limit < 0:
                    raise DataError(f"{path} unpacks to more than {_RATIO} times its size. Do not trust this file.")
                file.write(block)
    except (OSError, EOFError, zlib.error, LZMAError) as error:
        raise DataError(f"{path}: it is truncated or altered ({error}).") from error
