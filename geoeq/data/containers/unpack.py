"""Compressed files and archives as lines of text, plain files or folders."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import re
import shutil
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from geoeq.data.containers.archive import open_members
from geoeq.errors import DataError
from geoeq.files import check_regular

__all__ = ["bare_suffix", "decode", "is_archive", "read_lines", "unpacked", "unpacked_folder"]

#: Suffix of a compressed file -> function that opens it.
_COMPRESSED: dict[str, Callable[[IO[bytes], str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

#: Longest line of a text file, bytes.
_LONGEST_LINE = 1 << 24

#: A file may unpack to this many bytes plus this many times its own size; arrays of numbers compress about twice.
_FREE_BYTES, _RATIO = 1 << 24, 100
_BLOCK = 1 << 20

#: Bytes that no text in Latin-1 contains.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f-\x9f]")


def is_archive(path: Path) -> bool:
    """Return whether ``path`` has the name of a tar or zip file."""
    return path.name.lower().endswith((".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"))


def bare_suffix(path: Path) -> str:
    """Return the suffix in small letters, without that of a compression: ``.xyz`` for ``A.XYZ.gz``."""
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield the content of a compressed file, block by block.

    Raises:
        DataError: the file is truncated or altered, or the blocks become far larger than the part of the file that they
            come from, so that a bomb is refused at its beginning.
    """
    count, limit = 0, _FREE_BYTES
    try:
        with path.open("rb") as raw, _COMPRESSED[path.suffix.lower()](raw, "rb") as source:
            while block := source.read(_BLOCK):
                count += len(block)
                if count > limit:
                    limit = _FREE_BYTES + _RATIO * raw.tell()
                if count > limit:
                    raise DataError(f"{path} unpacks to more than {_RATIO} times its size. Do not trust this file.")
                yield block
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: it is truncated or altered ({error}).") from error


def decode(line: bytes) -> str:
    """Decode UTF-8, or Latin-1, in which older programs write names and units.

    Raises:
        UnicodeDecodeError: the bytes are neither: they contain control characters.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        if _CONTROL.search(line):
            raise
        return line.decode("latin-1")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a plain or compressed text file, without their ends.

    Raises:
        DataError: the file is truncated, altered or not text, or has a line of more than 16 MiB.
    """
    check_regular(path)
    compressed = _COMPRESSED.get(path.suffix.lower())
    if compressed is not None:
        deque(_blocks(path), maxlen=0)  # parsing takes far longer than unpacking: refuse a bomb before it starts
    number = 0
    try:
        with path.open("rb") as raw, compressed(raw, "rb") if compressed else nullcontext(raw) as file:
            while line := file.readline(_LONGEST_LINE):
                number += 1
                if len(line) == _LONGEST_LINE:
                    raise DataError(f"{path}: line {number} is longer than {_LONGEST_LINE} bytes: this is not a text.")
                yield decode(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number} is not text ({error}).") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: it is truncated or altered ({error}).") from error


@contextmanager
def unpacked(path: Path, member: str | None = None) -> Iterator[Path]:
    """Yield a temporary plain file with the content of ``path``, or of a member of it if it is an archive.

    Raises:
        DataError: the file is truncated, altered or not safe to unpack, or has no such member.
    """
    check_regular(path)
    if not is_archive(path) and path.suffix.lower() not in _COMPRESSED:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="geoeq-") as folder:
        plain = Path(folder) / (path.name if is_archive(path) else path.stem)  # readers go by the suffix
        with plain.open("wb") as file:
            if is_archive(path):
                _copy_member(path, member, file)
            else:
                file.writelines(_blocks(path))
        yield plain


@contextmanager
def unpacked_folder(path: Path, prefix: str) -> Iterator[Path]:
    """Yield a temporary folder with those members of the archive ``path`` whose names begin with ``prefix``.

    Raises:
        DataError: the archive is truncated, altered or not safe to unpack, or has no such member.
    """
    with tempfile.TemporaryDirectory(prefix="geoeq-") as folder:
        count = 0
        for name, content in open_members(path):
            if not name.removeprefix("./").startswith(prefix):
                continue
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file, _BLOCK)
            count += 1
        if not count:
            raise DataError(f"{path}: the archive contains no '{prefix}'.")
        yield Path(folder)


def _copy_member(path: Path, member: str | None, file: IO[bytes]) -> None:
    if member is None:
        raise DataError(f"{path} is an archive; name the file to read from it by the option 'member'.")
    names = []
    for name, content in open_members(path):
        if name.removeprefix("./") == member:
            shutil.copyfileobj(content, file, _BLOCK)
            return
        names.append(name)
    raise DataError(f"{path}: the archive contains no '{member}', but {', '.join(sorted(names)[:20]) or 'nothing'}.")
