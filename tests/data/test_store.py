"""The cache is all or nothing, and what was done to its files is noticed and named."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geoeq.data.store import INDEX, open_store, write_store
from geoeq.errors import DataError

ARRAYS = {
    "ptr": np.arange(5),
    "positions": np.random.default_rng(0).normal(size=(4, 3)),
    "numbers": np.uint8([1, 6, 7, 8]),
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    write_store(folder, ARRAYS, {"made": "today"})
    return folder


def test_round_trip_in_memory_maps(store):
    arrays, details = open_store(store, verify=True)
    assert details == {"made": "today"}
    for name, array in ARRAYS.items():
        assert isinstance(arrays[name], np.memmap)
        assert not arrays[name].flags.writeable
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype


def test_a_second_writing_replaces_the_first(store):
    write_store(store, {"ptr": np.zeros(2)}, {})
    arrays, _ = open_store(store)
    assert list(arrays) == ["ptr"]
    assert [path.name for path in store.parent.iterdir()] == ["store"]


def broken_message(store: Path, verify: bool = False) -> str:
    with pytest.raises(DataError) as error:
        open_store(store, verify)
    assert "Delete the folder" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ARRAYS)
def test_a_missing_file(store, name):
    (store / f"{name}.npy").unlink()
    assert f"{name}.npy is missing" in broken_message(store)


@pytest.mark.parametrize("keep", [0, 64, -1])
def test_a_truncated_file(store, keep):
    path = store / "positions.npy"
    path.write_bytes(path.read_bytes()[:keep])
    message = broken_message(store)
    assert "positions.npy has" in message
    assert "truncated" in message


def test_a_flipped_byte(store):
    path = store / "positions.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert "positions.npy was altered" in broken_message(store)


def test_a_flipped_byte_that_hides_its_time_is_found_when_asked(store):
    path = store / "positions.npy"
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "was altered" in broken_message(store, verify=True)


def test_a_copied_cache_is_good(store, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in store.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    np.testing.assert_array_equal(open_store(copy)[0]["positions"], ARRAYS["positions"])


def forge(store: Path, name: str, content: bytes) -> None:
    """Replace an array and make the index agree with it."""
    from geoeq.files import file_sha256

    path = store / f"{name}.npy"
    path.write_bytes(content)
    index = json.loads((store / INDEX).read_text())
    index["arrays"][name] |= {
        "bytes": len(content),
        "changed": path.stat().st_mtime_ns,
        "sha256": file_sha256(path),
    }
    (store / INDEX).write_text(json.dumps(index))


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_nothing_is_unpickled(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([Trap()], dtype=object), allow_pickle=True)
    for content in (objects.read_bytes(), pickle.dumps(Trap())):
        forge(store, "positions", content)
        assert "cannot be read" in broken_message(store)
        assert not (tmp_path / "trapped").exists()


def test_an_array_of_another_shape(store, tmp_path):
    np.save(tmp_path / "other.npy", np.zeros((3, 4)))
    forge(store, "positions", (tmp_path / "other.npy").read_bytes())
    assert "holds <f8 (3, 4), not <f8 (4, 3)" in broken_message(store)


def test_damaged_headers(store):
    random, raised, told = np.random.default_rng(0), set(), set()
    content = (store / "positions.npy").read_bytes()
    for number in range(60):
        damaged = bytearray(content[: len(content) if number % 5 else int(random.integers(128)) * (number > 0)])
        for place in random.integers(min(80, len(damaged)), size=random.integers(1, 4)) if damaged else ():
            damaged[place] ^= 1 << int(random.integers(8))
        forge(store, "positions", bytes(damaged))
        try:
            assert open_store(store)[0]["positions"].shape == (4, 3)
        except DataError as error:
            raised.add(type(error.__cause__).__name__)
            told.add("positions.npy" in str(error))
    assert {"EOFError", "TokenError", "ValueError"} <= raised
    assert told == {True}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 0}', '{"version": 99, "arrays": {}, "details": {}}'])
def test_a_broken_index(store, text):
    (store / INDEX).write_text(text)
    assert INDEX in broken_message(store)


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", ARRAYS, {})
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writing_looks_like_no_cache(tmp_path):
    code = (
        "import os, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from geoeq.data.store import write_store\n"
        "save = np.save\n"
        "def killed(file, array, **options):\n"
        "    save(file, array, **options)\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "np.save = killed\n"
        "write_store(Path(sys.argv[1]) / 'store', {'a': np.arange(3), 'b': np.arange(3)}, {})\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "store").exists()
    write_store(tmp_path / "store", ARRAYS, {})
    assert set(open_store(tmp_path / "store")[0]) == set(ARRAYS)
