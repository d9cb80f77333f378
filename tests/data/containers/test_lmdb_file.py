"""What the library of LMDB writes is read without it, and a damaged file is an error, not the end of the process."""

from __future__ import annotations

import random
from pathlib import Path

import lmdb
import numpy as np
import pytest

from geoeq.data.containers.lmdb_file import LMDBFile
from geoeq.errors import DataError


def write(path: Path, values: dict[bytes, bytes], **options: object) -> Path:
    with (
        lmdb.open(str(path), subdir=False, map_size=1 << 30, **options) as environment,
        environment.begin(write=True) as t,
    ):
        for key, value in values.items():
            t.put(key, value)
    return path


@pytest.mark.parametrize("count", [0, 1, 5, 400, 20_000])
def test_every_value_is_found(tmp_path, count):
    source = random.Random(count)
    values = {str(i).encode(): source.randbytes(source.choice([0, 1, 30, 300])) for i in range(count)}
    for size in (2000, 2100, 4096, 100_000, 3_000_000) if count == 400 else ():
        values[f"long{size}".encode()] = source.randbytes(size)
    path = write(tmp_path / "x.lmdb", values)
    with LMDBFile(path) as file:
        assert file.entries == len(values)
        for key, value in values.items():
            assert file.get(key) == value
        for key in (b"", b"nothing", b"\x00", b"\xff" * 9, b"1x"):
            assert file.get(key) is None


def test_the_newest_state_is_read(tmp_path):
    path = tmp_path / "x.lmdb"
    for number in range(5):
        write(path, {b"a": str(number).encode(), str(number).encode(): b"x" * 5000})
        with LMDBFile(path) as file:
            assert file.get(b"a") == str(number).encode()
            assert file.entries == number + 2
    with lmdb.open(str(path), subdir=False) as environment, environment.begin(write=True) as t:
        t.delete(b"3")
    with LMDBFile(path) as file:
        assert file.get(b"3") is None
        assert file.get(b"4") == b"x" * 5000


def test_databases_of_other_kinds(tmp_path):
    path = tmp_path / "x.lmdb"
    with lmdb.open(str(path), subdir=False, max_dbs=1) as environment:
        named = environment.open_db(b"named")
        with environment.begin(write=True) as t:
            t.put(b"a", b"1", db=named)
    with LMDBFile(path) as file, pytest.raises(DataError, match=r"x.lmdb .*it has several databases"):
        file.get(b"named")


@pytest.mark.parametrize("content", [b"", b"x", bytes(4096), bytes(100_000), b"\xff" * 100_000, b"PK\x03\x04" * 5000])
def test_what_is_no_lmdb_file(tmp_path, content):
    path = tmp_path / "x.lmdb"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x.lmdb is truncated, altered or not an LMDB file"):
        LMDBFile(path)


def test_a_tree_without_an_end(tmp_path):
    """A branch that names itself as what is below it."""
    path = write(tmp_path / "x.lmdb", {str(i).encode(): bytes(300) for i in range(400)})
    with LMDBFile(path) as file:
        root, size = file._root.page, file._root.page_size
    content = bytearray(path.read_bytes())
    page = content[root * size : (root + 1) * size]
    for place in range(16, int.from_bytes(page[12:14], "little"), 2):
        node = int.from_bytes(page[place : place + 2], "little")
        page[node : node + 6] = root.to_bytes(6, "little")
    content[root * size : (root + 1) * size] = page
    path.write_bytes(content)
    with LMDBFile(path) as file, pytest.raises(DataError, match=r"x.lmdb .*its tree has no end"):
        file.get(b"7")


def test_altered_files_are_read_or_refused_with_their_name(tmp_path, altered):
    values = {str(i).encode(): str(i).encode() * (1500 if i % 50 == 0 else 20) for i in range(300)}
    path = write(tmp_path / "x.lmdb", values)
    content, generator = path.read_bytes(), np.random.default_rng(0)
    refused = sum(bool(refusal(path, altered(content, generator), values)) for _ in range(150))
    assert refused > 50


def refusal(path: Path, content: bytes, values: dict[bytes, bytes]) -> str:
    path.write_bytes(content)
    try:
        with LMDBFile(path) as file:
            for key in values:
                file.get(key)
    except DataError as error:
        assert str(error).startswith(str(path))  # noqa: PT017
        return str(error)
    return ""
