"""Files read by ASE: unpacked within bounds first, and never read past their end."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geoeq.data.containers.unpack import unpacked

__all__ = ["ASE_ERRORS", "read_with_ase"]

#: Errors of ASE when a file is truncated or altered.
ASE_ERRORS: tuple[type[Exception], ...] = (ArithmeticError, AssertionError, AttributeError, EOFError, LookupError)
ASE_ERRORS += (MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError)

#: Number of reads past the end of a file after which it counts as truncated; readers that look for the end need few.
_MOST_READS = 1000


class _EndingText(io.TextIOWrapper):
    """A text file that can be read past its end only some times.

    Many readers of ASE trust a number of atoms in the file and call ``readline`` as often, which does not end.
    """

    _past_end = 0

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        line = super().readline(size)
        if line:
            self._past_end = 0
        else:
            self._past_end += 1
            if self._past_end > _MOST_READS:
                raise EOFError("it ends before the number of lines that it announces")
        return line


def read_with_ase(path: Path, form: str | None = None) -> Iterator[Any]:
    """Yield every structure of a file, plain or compressed (gz, bz2, xz), as ASE's Atoms.

    Args:
        path: path of the file.
        form: ASE's name of the format; found from the file if None.

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
                yield from iread(str(plain), index=":", format=form, do_not_split_by_at_sign=True)
                return
            with _EndingText(plain.open("rb"), encoding="utf-8") as text:
                yield from iread(text, index=":", format=form)
        except Exception as error:
            # Some errors of ASE, such as SpacegroupError, have no common base class.
            if isinstance(error, ASE_ERRORS) or not type(error).__module__.startswith("ase."):
                raise
            raise ValueError(f"{type(error).__name__}: {error}") from error
