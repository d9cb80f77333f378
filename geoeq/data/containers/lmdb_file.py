"""LMDB files, read without the library: it takes a file for what it says, and a truncated one ends the process.

Only what data sets use: one unnamed database of plain keys, little-endian, of 64 bits. Every place that a page names
is compared with the file before it is read.

Source:
    The layout of ``lmdb.h`` and ``mdb.c`` of OpenLDAP, version 0.9: a B+ tree of pages, of which the first two say
    where the root is.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from geoeq.errors import DataError

__all__ = ["LMDBFile"]

_MAGIC, _FORMAT = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_BIG, _NOT_PLAIN = 1, 6
_NOTHING = (1 << 64) - 1

#: number, padding, kind, end of the pointers to nodes, begin of the nodes; of an overflow the last two are one.
_PAGE = struct.Struct("<QHHHH")
#: magic, format, address, size; of two databases page size, flags, depth, 3 counts, entries, root; last page, number.
_HEADER = struct.Struct("<IIQQ" + 2 * "IHHQQQQQ" + "QQ")
_NODE = struct.Struct("<HHHH")

#: Deeper trees, and larger pages and values, are taken for damage.
_DEEPEST, _LARGEST_PAGE, _LARGEST_VALUE = 32, 1 << 16, 1 << 28


class _Root(NamedTuple):
    page_size: int
    page: int
    entries: int
    transaction: int


class LMDBFile:
    """A context manager for an LMDB file.

    Args:
        path: of the file itself, not of its folder.

    Attributes:
        entries: how many keys there are.

    Raises:
        DataError: it is truncated, altered or no LMDB file; the message names it. All methods raise this.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY)
        try:
            self._size = os.fstat(self._file).st_size
            self._root = self._newest()
        except BaseException:
            os.close(self._file)
            raise
        self.entries = self._root.entries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def get(self, key: bytes) -> bytes | None:
        """The value of ``key``; None if there is none."""
        number = self._root.page
        if number == _NOTHING:
            return None
        for _ in range(_DEEPEST):
            page, kind, nodes = self._page(number)
            if kind & _LEAF:
                place = self._place(page, nodes, key)
                if place == 0 or self._key(page, nodes[place - 1]) != key:
                    return None
                return self._value(page, nodes[place - 1])
            # The first key of a branch stands for all that come before the second.
            place = max(self._place(page, nodes, key, first=1), 1)
            low, high, top, _ = _NODE.unpack_from(page, nodes[place - 1])
            number = low | high << 16 | top << 32
        raise self._broken("its tree has no end")

    def _place(self, page: bytes, nodes: tuple[int, ...], key: bytes, first: int = 0) -> int:
        """How many nodes from ``first`` on have a key up to ``key``, and those before ``first``."""
        low, high = first, len(nodes)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._key(page, nodes[middle]) <= key else (low, middle)
        return low

    def _newest(self) -> _Root:
        # Each of the first two pages has a root; the size of a page is in the first.
        found = [root for root in (self._header(0), self._header(None)) if root is not None]
        if not found:
            raise self._broken("it does not begin as an LMDB file")
        return max(found, key=lambda root: root.transaction)

    def _header(self, place: int | None) -> _Root | None:
        if place is None:
            first = self._header(0)
            place = first.page_size if first else 4096
        content = self._read(place, _PAGE.size + _HEADER.size, exact=False)
        if len(content) < _PAGE.size + _HEADER.size or not _PAGE.unpack_from(content)[2] & _META:
            return None
        magic, form, _, _, *parts = _HEADER.unpack_from(content, _PAGE.size)
        page_size, flags, entries, root = parts[0], parts[9], parts[14], parts[15]
        if magic != _MAGIC or form != _FORMAT or not 512 <= page_size <= _LARGEST_PAGE or page_size & (page_size - 1):
            return None
        if flags & ~1:
            raise self._broken("its keys are sorted otherwise than those of data sets")
        return _Root(page_size, root, entries, parts[17])

    def _page(self, number: int) -> tuple[bytes, int, tuple[int, ...]]:
        """The page, its kind, and where in it the nodes are."""
        size = self._root.page_size
        page = self._read(number * size, size)
        itself, _, kind, lower, upper = _PAGE.unpack_from(page)
        if itself != number or kind & (_BRANCH | _LEAF) not in (_BRANCH, _LEAF):
            raise self._broken(f"page {number} is of another kind than its place in the tree")
        count = (lower - _PAGE.size) // 2
        if not (_PAGE.size < lower <= upper <= size) or lower % 2:
            raise self._broken(f"page {number} has impossible bounds")
        nodes = struct.unpack_from(f"<{count}H", page, _PAGE.size)
        if any(not upper <= node <= size - _NODE.size for node in nodes):
            raise self._broken(f"page {number} points outside of itself")
        return page, kind, nodes

    def _key(self, page: bytes, node: int) -> bytes:
        begin = node + _NODE.size
        return page[begin : begin + int.from_bytes(page[node + 6 : node + 8], "little")]

    def _value(self, page: bytes, node: int) -> bytes:
        low, high, flags, key_size = _NODE.unpack_from(page, node)
        begin, size = node + _NODE.size + key_size, low | high << 16
        if flags & _NOT_PLAIN:
            raise self._broken("it holds several databases, or keys with several values")
        if flags & _BIG:
            return self._overflow(int.from_bytes(page[begin : begin + 8], "little"), size)
        if begin + size > len(page):
            raise self._broken("a value reaches beyond its page")
        return page[begin : begin + size]

    def _overflow(self, number: int, size: int) -> bytes:
        if size > _LARGEST_VALUE:
            raise self._broken(f"a value has {size} bytes")
        content = self._read(number * self._root.page_size, _PAGE.size + size)
        if _PAGE.unpack_from(content)[0] != number or not _PAGE.unpack_from(content)[2] & _OVERFLOW:
            raise self._broken(f"page {number} is of another kind than its place in the tree")
        return content[_PAGE.size :]

    def _read(self, place: int, size: int, exact: bool = True) -> bytes:
        if place + size > self._size:
            if exact:
                raise self._broken(f"it ends after {self._size} bytes, before what it refers to")
            return b""
        return os.pread(self._file, size, place)

    def _broken(self, what: str) -> DataError:
        return DataError(f"{self.path} is truncated, altered or no LMDB file: {what}. Delete it and fetch it again.")
