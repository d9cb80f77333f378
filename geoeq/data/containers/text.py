"""Lines of a text file, plain or compressed, of bounded length and with errors that name the file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from geoeq.errors import DataError

__all__ = ["SUFFIXES", "bare_suffix", "lines"]

#: What a file may be compressed with, by the end of its name.
SUFFIXES: dict[str, Callable[[Path, str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

#: A longer line is no line of atoms.
_LONGEST = 1 << 24


def bare_suffix(path: Path) -> str:
    """The suffix without that of a compression, in small letters: ``.xyz`` of ``A.XYZ.gz``."""
    name = path.name.lower()
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def lines(path: Path) -> Iterator[str]:
    """The lines of ``path``, without their ends.

    Raises:
        DataError: it is truncated or altered, is no text, or has a line of more than 16 MiB.
    """
    opened = SUFFIXES.get(path.suffix.lower(), open)
    try:
        with cast(IO[bytes], opened(path, "rb")) as file:
            number = 0
            while line := file.readline(_LONGEST):
                number += 1
                if len(line) == _LONGEST:
                    raise DataError(f"{path}: line {number} is longer than {_LONGEST} bytes: this is no such text.")
                yield line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number} is no text ({error}).") from error
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: it is truncated or altered ({error}).") from error
