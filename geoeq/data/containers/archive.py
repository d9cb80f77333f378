"""Read the files in a tar or zip archive one after the other, without writing them to disk.

Names that lead out of the archive, links, devices, and archives that unpack to far more than their size are refused.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, cast

from geoeq.documents import shorten
from geoeq.errors import DataError
from geoeq.files import check_regular

__all__ = ["check_name", "open_members"]

#: Errors raised when a truncated or altered archive is read.
_ERRORS: tuple[type[Exception], ...]
_ERRORS = (EOFError, OSError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_ERRORS += (ValueError, NotImplementedError, RuntimeError)  # an invalid name, an unknown compression

#: An archive may unpack to this many bytes plus this many times its own size; text compresses about ten times.
_FREE_BYTES, _RATIO = 1 << 26, 100


def open_members(path: Path, most: int | None = None) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each file in the archive ``path``; a content is valid until the next is requested.

    Args:
        path: path of a ``.zip`` (or any file that begins like one), ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2`` or
            ``.tar.xz`` file.
        most: largest total size of the content in bytes, if that is less than the limit that the file's size sets.

    Raises:
        DataError: the file is truncated, altered, not such an archive, or not safe to unpack.
    """
    check_regular(path)
    try:
        limit = _FREE_BYTES + _RATIO * path.stat().st_size
        limit = limit if most is None else min(limit, most)
        yield from _zip_members(path, limit) if _is_zip(path) else _tar_members(path, limit)
    except _ERRORS as error:
        raise _broken(path, error) from error


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix == ".zip" or file.read(4) == b"PK\x03\x04"


def _tar_members(path: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    # The stream is opened here, because tarfile accepts a truncated file as a shorter one.
    with _decompressed(path) as plain:
        bounded = _Bounded(plain, path, limit)
        with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r|") as archive:
            for member in archive:
                check_name(path, member.name)
                if member.isdir():
                    continue
                content = archive.extractfile(member) if member.isreg() else None
                if content is None:
                    raise DataError(f"{path}: the member '{member.name}' is a link or a device, not a file.")
                yield member.name, cast(IO[bytes], _Bounded(content, path, limit))
        while bounded.read(_FREE_BYTES):
            pass  # read to the end, where the checksum is


def _decompressed(path: Path) -> IO[bytes]:
    if path.suffix == ".bz2":
        return cast(IO[bytes], bz2.open(path))
    if path.suffix in (".gz", ".tgz"):
        return cast(IO[bytes], gzip.open(path))
    return cast(IO[bytes], lzma.open(path)) if path.suffix == ".xz" else path.open("rb")


def _zip_members(path: Path, limit: int) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            check_name(path, member.filename)
            if (member.external_attr >> 28) == 0xA:
                raise DataError(f"{path}: the member '{member.filename}' is a link or a device, not a file.")
            if member.is_dir():
                continue
            with archive.open(member) as content:
                bounded = _Bounded(content, path, limit)
                yield member.filename, cast(IO[bytes], bounded)
                limit -= bounded.count


def _broken(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is truncated or altered ({shorten(str(error))}). Delete it and fetch it again.")


def check_name(path: Path, name: str) -> None:
    """Check that the name of a member does not lead out of the archive ``path``.

    Raises:
        DataError: the name leads out of the archive.
    """
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise DataError(f"{path}: the member '{name}' leads out of the archive. Do not trust this file.")


class _Bounded:
    """A file in an archive that can be read only up to a limit, and whose errors name the archive."""

    def __init__(self, file: IO[bytes], path: Path, limit: int) -> None:
        self.file, self.path, self.limit = file, path, limit
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        amount = min(size, _FREE_BYTES) if size >= 0 else self.limit - self.count + 1
        return self._counted(self.file.read, amount)

    def readline(self) -> bytes:
        return self._counted(self.file.readline, _FREE_BYTES)

    def __iter__(self) -> Iterator[bytes]:
        while line := self.readline():
            yield line

    def _counted(self, read: Callable[[int], bytes], amount: int) -> bytes:
        try:
            block = read(amount)
        except _ERRORS as error:
            raise _broken(self.path, error) from error
        self.count += len(block)
        if self.count > self.limit:
            raise DataError(f"{self.path} unpacks to more than {self.limit} bytes. Do not trust this file.")
        return block
