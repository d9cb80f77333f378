"""The files of a source: the source itself, or the files in a folder, a tar archive or a compressed archive."""

from __future__ import annotations

import lzma
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from geoeq.data.containers.archive import check_name, open_members
from geoeq.errors import DataError
from geoeq.files import atomic_folder

__all__ = ["Entry", "list_entries", "read_entry"]

#: A compressed file may unpack to this many bytes plus this many times its size.
_FREE_BYTES, _RATIO = 1 << 26, 100

#: Largest amount of memory for unpacking a file.
_MOST_MEMORY = 1 << 28

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


class Entry(NamedTuple):
    """A file on disk or within a tar archive.

    Attributes:
        name: path within the source, with / between folders.
        path: path of the file on disk, or of the archive.
        offset: first byte of the file within ``path``.
        size: number of bytes.
    """

    name: str
    path: Path
    offset: int
    size: int

    def __str__(self) -> str:
        return str(self.path) if self.path.name == Path(self.name).name else f"{self.path}: {self.name}"


def list_entries(path: Path) -> list[Entry]:
    """Return the files in the source ``path``, in the order of the numbers in their names.

    A folder is searched, and a tar archive is read in place. A compressed archive, which cannot be read in part, is
    unpacked once beside itself.

    Raises:
        DataError: an archive is truncated, altered or not safe to unpack.
    """
    status = path.stat()
    return list(_entries(path, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=8)
def _entries(path: Path, size: int, changed: int) -> tuple[Entry, ...]:
    if path.name.endswith(_COMPRESSED):
        path = _unpacked(path)
    if path.is_dir():
        entries = [_file(item, item.relative_to(path).as_posix()) for item in path.rglob("*") if item.is_file()]
    elif path.suffix == ".tar":
        entries = _tar_entries(path)
    else:
        entries = [_file(path, path.name)]
    return tuple(sorted(entries, key=lambda entry: _natural(entry.name)))


def _file(path: Path, name: str) -> Entry:
    return Entry(name, path, 0, path.stat().st_size)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts 2.txt before 10.txt."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", name)]


def _tar_entries(path: Path) -> list[Entry]:
    entries, end = [], 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                check_name(path, member.name)
                end = member.offset_data + (-(-member.size // 512) * 512 if member.isreg() else 0)
                if member.isreg() and not member.issparse():
                    entries.append(Entry(member.name, path, member.offset_data, member.size))
                elif not member.isdir():
                    raise DataError(f"{path}: the member '{member.name}' is a link or a device, not a file.")
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is truncated or altered ({error}). Delete it and fetch it again.") from error
    # tarfile takes an unreadable header for the end of the archive, which must be zeros.
    with path.open("rb") as file:
        file.seek(end)
        if file.read(1024) != bytes(1024):
            raise DataError(f"{path} is truncated or altered after {end} bytes. Delete it and fetch it again.")
    return entries


def _unpacked(path: Path) -> Path:
    folder = path.with_name(f"{path.name}-{path.stat().st_size}.unpacked")
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            for name, content in open_members(path):
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
    return folder


def read_entry(entry: Entry) -> bytes:
    """Return the bytes of a file, unpacked if its name ends with .xz or .gz.

    Raises:
        DataError: the file is truncated or altered, or unpacks to far more than its size.
    """
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        content = file.read(entry.size)
    if len(content) != entry.size:
        raise DataError(f"{entry} is truncated. Delete it and fetch it again.")
    kind = _KINDS.get(Path(entry.name).suffix)
    return content if kind is None else _unpack(content, kind, _FREE_BYTES + _RATIO * entry.size, entry)


def _unpack(content: bytes, kind: Callable[[], Any], limit: int, entry: Entry) -> bytes:
    """Unpack all consecutive streams of a compressed file."""
    plain = bytearray()
    try:
        while content:
            unpacker = kind()
            plain += unpacker.decompress(content, limit + 1 - len(plain))
            if len(plain) > limit:
                raise DataError(f"{entry} unpacks to more than {limit} bytes. Do not trust this file.")
            if not unpacker.eof:
                raise EOFError("it ends too early")
            content = unpacker.unused_data
    except (lzma.LZMAError, zlib.error, EOFError, ValueError) as error:
        raise DataError(f"{entry} is truncated or altered ({error}). Delete it and fetch it again.") from error
    return bytes(plain)


_KINDS: dict[str, Callable[[], Any]] = {
    ".xz": lambda: lzma.LZMADecompressor(memlimit=_MOST_MEMORY),
    ".gz": lambda: zlib.decompressobj(16 + zlib.MAX_WBITS),
}
