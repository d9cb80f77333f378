"""LMDB files, read without the library, which trusts the file and crashes the process if it is truncated.

Only the features that data sets use are supported: one unnamed database of plain keys, little-endian, 64 bit. Every
offset is compared with the size of the file before it is used.

Source:
    The layout of ``lmdb.h`` and ``mdb.c`` of OpenLDAP, version 0.9: a B+ tree of pages, of which the first two
    contain the root.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple, Self

from geoeq.errors import DataError
from geoeq.files import check_regular

__all__ = ["LMDBFile"]

_MAGIC, _FORMAT = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_BIG, _NOT_PLAIN = 1, 6
_NOTHING = (1 << 64) - 1

#: Number, padding, kind, end of the pointers to nodes, begin of the nodes (the last two are one in an overflow page).
_PAGE = struct.Struct("<QHHHH")
#: Magic, format, address, size; per database page size, flags, depth, 3 counts, entries, root; last page, number.
_HEADER = struct.Struct("<IIQQ" + 2 * "IHHQQQQQ" + "QQ")
_NODE = struct.Struct("<HHHH")

#: Deeper trees, and larger pages and values, count as damage.
_DEEPEST, _LARGEST_PAGE, _LARGEST_VALUE = 32, 1 << 16, 1 << 28


class _Root(NamedTuple):
    page_size: int
    page: int
    entries: int
    transaction: int


class LMDBFile:
    """An open LMDB file; a context manager that closes it.

    Args:
        path: path of the file itself, not of its folder.

    Attributes:
        entries: number of keys.

    Raises:
        DataError: the file is truncated, altered or not an LMDB file; the message names it. All methods raise this.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_regular(path)
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

    def __exit__(self, *error: object) -> None:
        os.close(self._file)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of ``key``, or None if the key does not exist."""
        number = self._root.page
        if number == _NOTHING:
            return None
        for _ in range(_DEEPEST):
            page, kind, nodes = self._page(number)
            if kind & _LEAF:
                count = self._count(page, nodes, key)
                if count == 0 or self._key(page, nodes[count - 1]) != key:
                    return None
                return self._value(page, nodes[count - 1])
            # The first node of a branch contains all keys before the second.
            count = max(self._count(page, nodes, key, first=1), 1)
            low, high, top, _ = _NODE.unpack_from(page, nodes[count - 1])
            number = low | high << 16 | top << 32
        raise self._broken("its tree has no end")

    def _count(self, page: bytes, nodes: tuple[int, ...], key: bytes, first: int = 0) -> int:
        """Count the nodes whose key is at most ``key``; those before ``first`` always count."""
        low, high = first, len(nodes)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self._key(page, nodes[middle]) <= key else (low, middle)
        return low

    def _newest(self) -> _Root:
        # Each of the first two pages contains a root; the first contains the page size.
        roots = [root for root in (self._header(0), self._header(None)) if root is not None]
        if not roots:
            raise self._broken("it does not begin like an LMDB file")
        return max(roots, key=lambda root: root.transaction)

    def _header(self, offset: int | None) -> _Root | None:
        if offset is None:
            first = self._header(0)
            offset = first.page_size if first else 4096
        content = self._read(offset, _PAGE.size + _HEADER.size, exact=False)
        if len(content) < _PAGE.size + _HEADER.size or not _PAGE.unpack_from(content)[2] & _META:
            return None
        magic, form, _, _, *parts = _HEADER.unpack_from(content, _PAGE.size)
        page_size, flags, entries, root = parts[0], parts[9], parts[14], parts[15]
        if magic != _MAGIC or form != _FORMAT or not 512 <= page_size <= _LARGEST_PAGE or page_size & (page_size - 1):
            return None
        if flags & ~1:
            raise self._broken("its keys have an order that is not supported")
        return _Root(page_size, root, entries, parts[17])

    def _page(self, number: int) -> tuple[bytes, int, tuple[int, ...]]:
        """Return the page, its kind, and the offsets of its nodes."""
        size = self._root.page_size
        page = self._read(number * size, size)
        itself, _, kind, lower, upper = _PAGE.unpack_from(page)
        if itself != number or kind & (_BRANCH | _LEAF) not in (_BRANCH, _LEAF):
            raise self._broken(f"page {number} is of another kind than the tree expects")
        count = (lower - _PAGE.size) // 2
        if not (_PAGE.size < lower <= upper <= size) or lower % 2:
            raise self._broken(f"page {number} has impossible bounds")
        nodes = struct.unpack_from(f"<{count}H", page, _PAGE.size)
        if any(not upper <= node <= size - _NODE.size for node in nodes):
            raise self._broken(f"page {number} points outside itself")
        return page, kind, nodes

    def _key(self, page: bytes, node: int) -> bytes:
        begin = node + _NODE.size
        return page[begin : begin + int.from_bytes(page[node + 6 : node + 8], "little")]

    def _value(self, page: bytes, node: int) -> bytes:
        low, high, flags, key_size = _NODE.unpack_from(page, node)
        begin, size = node + _NODE.size + key_size, low | high << 16
        if flags & _NOT_PLAIN:
            raise self._broken("it has several databases, or keys with several values")
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
            raise self._broken(f"page {number} is of another kind than the tree expects")
        return content[_PAGE.size :]

    def _read(self, offset: int, size: int, exact: bool = True) -> bytes:
        if offset + size > self._size:
            if exact:
                raise self._broken(f"it ends after {self._size} bytes, before the page that it refers to")
            return b""
        return os.pread(self._file, size, offset)

    def _broken(self, fault: str) -> DataError:
        return DataError(
            f"{self.path} is truncated, altered or not an LMDB file: {fault}. Delete it and fetch it again."
        )
