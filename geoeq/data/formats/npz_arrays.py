"""The arrays of an npz file, read some rows at a time, with sizes verified against the file."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import numpy as np

from geoeq.data.ragged import Array
from geoeq.documents import shorten
from geoeq.errors import DataError
from geoeq.files import check_regular

__all__ = ["NpzArrays"]

#: Errors of numpy and zipfile when a file is truncated or altered.
_ERRORS: tuple[type[Exception], ...] = (EOFError, KeyError, OSError, OverflowError, RuntimeError, SyntaxError)
_ERRORS += (TypeError, ValueError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

#: An array may unpack to this many bytes plus this many times its own size.
_FREE_BYTES, _RATIO = 1 << 26, 100


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool


class NpzArrays:
    """An open npz file; nothing in it is ever unpickled.

    Args:
        path: path of the file.
        where: name of the file for messages, if it was extracted from an archive.

    Attributes:
        shapes: array -> shape.

    Raises:
        DataError: the file is truncated, altered or not an npz file, or the header of an array does not match its size.
    """

    def __init__(self, path: Path, where: str = "") -> None:
        self.where = where or str(path)
        check_regular(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except _ERRORS as error:
            raise self._broken(error) from error
        self._headers: dict[str, _Header] = {}
        try:
            for member in self._archive.namelist():
                if member.endswith(".npy"):
                    name = member.removesuffix(".npy")
                    with self._archive.open(member) as file:
                        self._headers[name] = self._header(file, name)
        except _ERRORS as error:
            self._archive.close()
            raise self._broken(error) from error
        except DataError:
            self._archive.close()
            raise
        self.shapes = {name: header.shape for name, header in self._headers.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._archive.close()

    def blocks(self, name: str, parts: Sequence[slice], stack: ExitStack) -> Iterator[Array]:
        """Yield the rows of an array, for consecutive slices that cover all of them.

        Args:
            name: name of the array.
            parts: the slices.
            stack: stack that closes the file.
        """
        shape, dtype, fortran = self._headers[name]
        if dtype.hasobject:
            raise DataError(f"{self.where}: '{name}' contains Python objects, which are not read.")
        row = math.prod(shape[1:])
        try:
            file = stack.enter_context(self._archive.open(f"{name}.npy"))
            self._header(file, name)
            if fortran:  # files of sGDML: the rows of a structure are not contiguous, so the whole array is read
                whole = np.frombuffer(file.read(), dtype=dtype).reshape(shape, order="F")
                yield from (np.ascontiguousarray(whole[part]) for part in parts)
                return
            for part in parts:
                count = part.stop - part.start
                content = file.read(count * row * dtype.itemsize)
                yield np.frombuffer(content, dtype=dtype, count=count * row).reshape(count, *shape[1:])
            if file.read(1):
                raise ValueError(f"'{name}' has data after its end")
        except _ERRORS as error:
            raise self._broken(error) from error

    def whole(self, name: str) -> Array:
        """Read a whole array."""
        shape = self.shapes[name]
        with ExitStack() as stack:
            stream = self.blocks(name, [slice(0, shape[0] if shape else 1)], stack)
            array = next(stream)
            next(stream, None)
        return array.reshape(shape)

    def text(self, name: str) -> str:
        """Read an array that contains one text."""
        value = self.whole(name).reshape(-1)
        if len(value) != 1 or value.dtype.kind not in "SU":
            raise DataError(f"{self.where}: '{name}' must be one text.")
        return value[0].decode("utf-8", "replace") if isinstance(value[0], bytes) else str(value[0])

    def _header(self, file: IO[bytes], name: str) -> _Header:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise DataError(
                f"{self.where}: '{name}' has version {version} of the npy format; versions 1.0 and 2.0 are supported."
            )
        shape, fortran, dtype = _HEADERS[version](file)
        size, member = math.prod(shape) * dtype.itemsize, self._archive.getinfo(f"{name}.npy")
        actual = member.file_size - file.tell()
        if min(shape, default=0) < 0 or (not dtype.hasobject and size != actual):
            raise DataError(f"{self.where}: '{name}' has {actual} bytes instead of {size}: it is truncated or altered.")
        if member.file_size > _FREE_BYTES + _RATIO * member.compress_size:
            raise DataError(f"{self.where}: '{name}' unpacks to more than {_RATIO} times its size. Do not trust it.")
        return _Header(shape, dtype, fortran and len(shape) > 1)

    def _broken(self, error: Exception) -> DataError:
        return DataError(f"{self.where}: it is truncated or altered ({shorten(str(error))}).")
