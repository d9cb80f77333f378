"""Files on a full disk, and what killed processes leave."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from geoeq.files import AppendLog, atomic_folder, atomic_write, load_state, remove_stale, save_state, write_text


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond ``limit`` bytes; the system then answers as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_with(writer, path: Path) -> None:
    with atomic_write(path) as temporary:
        writer(temporary)


WRITERS = {
    "state": lambda path: save_state(path, {"x": torch.zeros(100_000)}),
    "safetensors": lambda path: write_with(lambda temporary: save_file({"x": torch.zeros(100_000)}, temporary), path),
    "text": lambda path: write_text(path, "x" * 100_000),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_an_error_of_the_system_and_keeps_the_old_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    save_state(path, {"step": 1})
    with full_disk(10_000), pytest.raises(OSError, match=r"file\.pt"):
        WRITERS[kind](path)
    assert load_state(path)["step"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_log_on_a_full_disk(tmp_path: Path) -> None:
    log = AppendLog(tmp_path / "log.csv")
    log.append("a row\n")
    with full_disk(1000):
        with pytest.raises(OSError, match=r"log\.csv"):
            log.append("x" * 100_000)
        log.close()
    AppendLog(tmp_path / "log.csv", 6).close()
    assert (tmp_path / "log.csv").read_text() == "a row\n"


def test_other_errors_of_a_writer_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="of another kind"), atomic_write(tmp_path / "file"):
        raise RuntimeError("of another kind")


KILLED = """
import os, sys
from pathlib import Path
from geoeq.files import atomic_folder, atomic_write
folder = Path(sys.argv[1])
with atomic_folder(folder / "data.v1") as inner, atomic_write(folder / "summary.png") as temporary:
    temporary.write_text("half")
    (inner / "array.npy").write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_process_has_left_is_deleted_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / ".hidden-1").touch()
    with atomic_write(tmp_path / "mine") as mine, atomic_folder(tmp_path / "folder") as folder:
        mine.touch()
        assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
        assert len(list(tmp_path.iterdir())) == 5
        remove_stale(tmp_path)
        assert {*tmp_path.iterdir()} == {tmp_path / ".hidden-1", mine, folder}, "the files of living processes stay"
    assert {path.name for path in tmp_path.iterdir()} == {".hidden-1", "mine", "folder"}


def write_once(path: str) -> None:
    write_text(Path(path), "text")


def test_a_new_process_cleans_up_when_it_first_writes(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    process = multiprocessing.get_context("fork").Process(target=write_once, args=(str(tmp_path / "new"),))
    process.start()
    process.join()
    assert os.listdir(tmp_path) == ["new"]
