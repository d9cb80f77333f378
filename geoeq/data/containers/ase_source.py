"""Files read by ASE: unpacked within bounds first, and never read past their end."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoeq.data.containers.unpack import unpacked
from geoeq.documents import shorten

__all__ = ["ASE_ERRORS", "cause", "read_with_ase"]

#: Errors of ASE when a file is truncated or altered.
ASE_ERRORS: tuple[type[Exception], ...] = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError)
ASE_ERRORS += (MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError)

#: Number of reads past the end of a file after which it counts as truncated; readers that look for the end need few.
_MOST_READS = 1000

#: Lines by which ASE builds lists in memory before it reads the next one: a column of an extended xyz file with more
#: than 999 numbers, and counts of atoms, at least ten million, that must not be above the size of the file.
_WIDE, _COUNTS, _MANY = re.compile(r":[RSIL]:\d{4,}"), re.compile(r"[\d\s]*\d{8,}[\d\s]*"), 10_000_000


class _EndingText(io.TextIOWrapper):
    """A text file that can be read past its end only some times, and announces no more than it can contain.

    Many readers of ASE trust a number of atoms in the file and call ``readline`` as often, which does not end.

    Args:
        path: path of the file.
        counts: whether lines of large whole numbers are counts of atoms.
    """

    def __init__(self, path: Path, counts: bool) -> None:
        super().__init__(path.open("rb"), encoding="utf-8")
        self._most = max(path.stat().st_size, _MANY) if counts else None
        self._past_end = 0

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        line = super().readline(size)
        if line:
            self._past_end = 0
            self._check(line)
        else:
            self._past_end += 1
            if self._past_end > _MOST_READS:
                raise EOFError("it ends before the number of lines that it announces")
        return line

    def _check(self, line: str) -> None:
        if (wide := _WIDE.search(line)) is not None:
            raise ValueError(f"it announces a column of more than 999 numbers: '{wide[0][:40]}'")
        if self._most is not None and _COUNTS.fullmatch(line):
            for word in line.split():
                if len(word) > 18 or int(word) > self._most:
                    raise ValueError(f"it announces {word[:40]} atoms, more than it can contain")


def cause(error: Exception) -> str:
    """Return the cause of an error of ASE, short enough for a message."""
    return shorten(f"{type(error).__name__}: {error}")


def read_with_ase(path: Path, form: str | None = None, **options: Any) -> Iterator[Any]:
    """Yield every structure of a file, plain or compressed (gz, bz2, xz), as ASE's Atoms.

    Args:
        path: path of the file.
        form: ASE's name of the format; found from the file if None.
        options: options of ASE's reader of this format.

    Raises:
        DataError: a compressed file is truncated, altered, or unpacks to far more than its size.
        Exception: any of ``ASE_ERRORS``, if the file is damaged or announces more than it contains.
    """
    from ase.io import iread
    from ase.io.formats import filetype, get_ioformat

    with unpacked(path) as plain:
        form = form or filetype(str(plain))
        kind = get_ioformat(form)
        try:
            if kind.isbinary or not kind.acceptsfd:
                yield from iread(str(plain), index=":", format=form, do_not_split_by_at_sign=True, **options)
                return
            with _EndingText(plain, counts=form != "lammps-dump-text") as text:  # which has lines of only a time step
                yield from iread(text, index=":", format=form, **options)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        except Exception as error:
            # Some errors of ASE, such as SpacegroupError, have no common base class.
            if isinstance(error, ASE_ERRORS) or not type(error).__module__.startswith("ase."):
                raise
            raise ValueError(f"{type(error).__name__}: {error}") from error
