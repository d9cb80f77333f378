"""Chunks and shards give the same records as reading all at once; a kill costs only the shard being read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from geoeq.data import Card, Dataset, Frame, Records, chunk_frames, join, prepare, read_card, stack
from geoeq.data.store import INDEX, open_store, read_index
from geoeq.errors import DataError, InputError, NonFiniteError

READERS = """
import os, signal
from pathlib import Path
import numpy as np
from geoeq.data import Frame, Shard, ShardedReader, chunk_frames, join


def frames(path, start=0, stop=None):
    for number, size in list(enumerate(int(word) for word in path.read_text().split()))[start:stop]:
        random = np.random.default_rng([number, size])
        bad = path.parent / f"bad-{path.name}-{number}"
        yield Frame(
            positions=random.normal(size=(size, 3)) * 9 + (np.nan if bad.exists() else 0.0),
            numbers=random.integers(1, 9, size).astype(np.uint8),
            of_graph={"e": random.normal()},
            of_nodes={"f": random.normal(size=(size, 3)).astype(np.float32)},
            nodes={"tags": random.integers(0, 3, size).astype(np.uint8)},
            graphs={"sid": np.int64(number)},
            cell=np.eye(3) * 50,
            pbc=np.array([True, True, False]),
        )


class Whole:
    version = 1

    def read(self, files):
        return join(self.chunks(files), "toy")

    def chunks(self, files):
        for path in files.values():
            yield from chunk_frames(frames(path), 50)


class Chunks(Whole):
    def read(self, files):
        return self.chunks(files)


class Shards(ShardedReader):
    version = 1

    def shards(self, files):
        ends = {name: len(path.read_text().split()) for name, path in files.items()}
        return [Shard(name, i, i + 2) for name, end in ends.items() for i in range(0, end, 2)]

    def read_shard(self, files, shard):
        path = files[shard.file]
        with (path.parent / "log").open("a") as log:
            log.write(f"{shard} ")
        for records in chunk_frames(frames(path, shard.start, shard.stop), 20):
            yield records
            if (path.parent / f"kill-{shard.file}-{shard.start}").exists():
                os.kill(os.getpid(), signal.SIGKILL)
"""
SIZES = {"a": "12 30 7 25 9", "b": "40 3", "c": "5 6 7 8"}
ALL = [f"{name} [{i}:{i + 2}]" for name, text in SIZES.items() for i in range(0, len(text.split()), 2)]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a data set in a format of its own, whose readers other processes can import."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (tmp_path / "toy_readers.py").write_text(READERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in SIZES.items():
        (folder / name).write_text(text)
    return folder


def make_card(toy: Path, reader: str) -> Card:
    content = {
        "name": "toy",
        "title": "sizes",
        "reader": f"toy_readers.{reader}",
        "licence": "none",
        "citation": "none",
        "sources": [{"file": name, "shipped": True} for name in SIZES],
        "targets": {
            "energy": {"column": "e", "unit": "Ha", "report": "eV"},
            "forces": {"column": "f", "unit": "Ha/a0", "report": "eV/Å"},
        },
        "splits": {"all": {"method": "consecutive", "sizes": {"train": 9, "valid": 1, "test": 1}}},
        "default_split": "all",
        "default_target": "energy",
    }
    path = toy / f"{reader}.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_card(path, trust="toy_readers")


def arrays_of(toy: Path, reader: str, processes: int | None = None) -> dict[str, np.ndarray]:
    folder = prepare(make_card(toy, reader), processes=processes)
    return open_store(folder, verify=True)[0]


def assert_whole(toy: Path, arrays: dict[str, np.ndarray]) -> None:
    whole = arrays_of(toy, "Whole")
    assert arrays.keys() == whole.keys()
    for name, array in whole.items():
        assert arrays[name].dtype == array.dtype, name
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def log(toy: Path) -> list[str]:
    words = (toy / "log").read_text().split()
    (toy / "log").unlink()
    return [f"{file} {bounds}" for file, bounds in zip(words[::2], words[1::2])]


def test_chunks_are_the_whole(toy):
    assert_whole(toy, arrays_of(toy, "Chunks"))


@pytest.mark.parametrize("processes", [1, 2])
def test_shards_are_the_whole(toy, root, processes):
    arrays = arrays_of(toy, "Shards", processes)
    assert_whole(toy, arrays)
    assert sorted(log(toy)) == ALL
    folder = prepare(make_card(toy, "Shards"))
    assert read_index(folder)["details"]["parts"] == {"a": 5, "b": 2, "c": 4}
    assert not [path for path in root.rglob(".*") if path.name != ".lock"], "nothing is left beside the cache"
    assert not (folder / "journal.jsonl").exists()


def test_the_workers_of_a_cluster_read_the_same(toy, root):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        address = cluster.scheduler_address
        folder = prepare(make_card(toy, "Shards"), dask=address)
        assert sorted(log(toy)) == ALL
        with pytest.raises(InputError, match="does not divide the files into shards; prepare it without Dask"):
            prepare(make_card(toy, "Whole"), dask=address)
        (toy / "a").write_text("12 30 7 25 8")
        (toy / "bad-a-4").touch()
        with pytest.raises(NonFiniteError, match=r"a \[4:6\]"):
            prepare(make_card(toy, "Shards"), dask=address)
        (toy / "a").write_text(SIZES["a"])
        (toy / "bad-a-4").unlink()
    assert_whole(toy, open_store(folder, verify=True)[0])


def test_a_missing_scheduler_is_reported(toy, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("geoeq.workers.dask._PATIENCE", 0.2)
    with pytest.raises(InputError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        prepare(make_card(toy, "Shards"), dask="tcp://127.0.0.1:9")


def test_energies_are_double_and_names_of_structures_are_there(toy):
    dataset = Dataset.open(make_card(toy, "Shards"), prepare(make_card(toy, "Shards"), processes=1))
    assert dataset.targets["energy"].dtype == np.float64
    assert dataset.targets["forces"].dtype == np.float32
    assert dataset.batch([5, 10]).sid.tolist() == [0, 3]
    assert dataset.batch([5, 10]).tags.shape == (48,)


PREPARE = (
    "import sys; from pathlib import Path; from geoeq.data import prepare, read_card\n"
    "prepare(read_card(Path(sys.argv[1]), trust=True), processes=int(sys.argv[2]))"
)


def prepare_elsewhere(toy: Path, processes: int) -> subprocess.CompletedProcess[str]:
    """Prepare in another process, which may be killed."""
    make_card(toy, "Shards")
    path = {"PYTHONPATH": os.pathsep.join([str(toy.parent), *filter(None, sys.path)])}
    command = [sys.executable, "-c", PREPARE, str(toy / "Shards.yaml"), str(processes)]
    return subprocess.run(command, env=os.environ | path, capture_output=True, text=True, check=False)


def test_after_a_kill_only_the_rest_is_read(toy, root):
    (toy / "kill-b-0").touch()
    assert prepare_elsewhere(toy, 1).returncode == -signal.SIGKILL
    assert log(toy) == ALL[:4]
    assert not list(root.rglob(f"full-*/{INDEX}")), "nothing half-written can be opened"
    (toy / "kill-b-0").unlink()
    arrays = arrays_of(toy, "Shards", 1)
    assert log(toy) == ALL[3:]
    assert_whole(toy, arrays)


@pytest.mark.slow
def test_a_killed_worker_is_reported(toy):
    (toy / "kill-a-4").touch()
    done = prepare_elsewhere(toy, 2)
    assert done.returncode == 1
    assert "a [4:6] could not be read: its process was ended by signal 9 (SIGKILL)" in done.stderr
    log(toy)
    (toy / "kill-a-4").unlink()
    arrays = arrays_of(toy, "Shards", 2)
    assert {"a [0:2]", "a [2:4]"}.isdisjoint(log(toy))
    assert_whole(toy, arrays)


def left_work(toy: Path, root: Path) -> Path:
    (toy / "bad-c-1").touch()
    with pytest.raises(NonFiniteError):
        prepare(make_card(toy, "Shards"), processes=1)
    (toy / "bad-c-1").unlink()
    log(toy)
    (work,) = root.glob("toy/.full-*-work")
    return work


def test_what_was_written_after_the_last_piece_is_cut_off(toy, root):
    work = left_work(toy, root)
    for path in [*(work / "whole").glob("*.npy"), work / "whole" / "journal.jsonl"]:
        with path.open("ab") as file:
            file.write(b'{"label": 1')
    arrays = arrays_of(toy, "Shards", 1)
    assert log(toy) == ALL[4:]
    assert_whole(toy, arrays)


@pytest.mark.parametrize("name", ["positions", "ptr", "target.energy"])
def test_altered_work_is_done_again(toy, root, name):
    path = left_work(toy, root) / "whole" / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    arrays = arrays_of(toy, "Shards", 1)
    assert log(toy) == ALL
    assert_whole(toy, arrays)


def test_work_of_other_files_is_done_again(toy, root):
    left_work(toy, root)
    (toy / "a").write_text("12 30 7 25 8")
    arrays = arrays_of(toy, "Shards", 1)
    assert log(toy) == ALL
    assert_whole(toy, arrays)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_structure_that_cannot_be(toy, root, processes):
    (toy / "bad-c-3").touch()
    with pytest.raises(NonFiniteError, match=r"^toy: c \[2:4\]: structure 1: "):
        prepare(make_card(toy, "Shards"), processes=processes)
    assert not list(root.rglob(f"full-*/{INDEX}"))
    (toy / "bad-c-3").unlink()
    assert_whole(toy, arrays_of(toy, "Shards", processes))


def test_a_structure_in_chunks_that_cannot_be(toy, root):
    (toy / "bad-c-3").touch()
    with pytest.raises(NonFiniteError, match=r"^toy: structure 10: "):
        prepare(make_card(toy, "Chunks"))
    assert [path.name for path in (root / "toy").iterdir()] == [".lock"]


def frame(**changes: object) -> Frame:
    values: dict[str, object] = {"positions": np.ones((2, 3)), "numbers": np.array([1, 8]), "of_graph": {"e": 1.0}}
    return Frame(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"of_graph": {}}, "x: it lacks 'column e', unlike the one before it"),
        ({"of_nodes": {"f": np.ones((2, 3))}}, "x: it has 'column f'"),
        ({"cell": np.eye(3)}, "x: it has 'cell'"),
        ({"numbers": None}, "x: it lacks 'numbers'"),
        ({"positions": np.ones((0, 3)), "numbers": np.ones(0)}, "x: it has no atoms"),
        ({"numbers": np.ones(3)}, "x: 'numbers' has 3 rows instead of 2"),
    ],
)
def test_a_frame_unlike_the_others(changes, message):
    with pytest.raises(DataError, match=message):
        stack([frame(), frame(**changes, where="x")])


def test_chunks_are_of_bounded_size_and_join():
    frames = [frame() for _ in range(7)]
    chunks = list(chunk_frames(frames, 4))
    assert [len(chunk.ptr) - 1 for chunk in chunks] == [2, 2, 2, 1]
    joined, whole = join(chunks, "here"), stack(frames)
    np.testing.assert_array_equal(joined.ptr, whole.ptr)
    np.testing.assert_array_equal(joined.columns["e"], whole.columns["e"])
    with pytest.raises(DataError, match="here: it contains no structures"):
        join([], "here")
    with pytest.raises(DataError, match="here: some chunks have other arrays"):
        join([*chunks, Records(np.ones((1, 3)), np.array([0, 1]), None, {})], "here")


def test_memory_does_not_grow_with_the_data(tmp_path):
    """100 MB in pieces of 2 MB, through an array of pointers, a part that is opened, and one that is appended to."""
    code = (
        "import resource, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from geoeq.data.store import open_store\n"
        "from geoeq.data.preparation.writer import StoreWriter\n"
        "def peak():\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "piece = {'ptr': np.arange(80_001), 'positions': np.ones((80_000, 3))}\n"
        "part = StoreWriter(Path(sys.argv[1]) / 'part')\n"
        "before = peak()\n"
        "for _ in range(40):\n"
        "    part.append(piece)\n"
        "part.finish({})\n"
        "whole = StoreWriter(Path(sys.argv[1]) / 'whole')\n"
        "whole.append(open_store(part.folder, verify=True)[0])\n"
        "whole.commit(0)\n"
        "StoreWriter(whole.folder).finish({})\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50
    arrays = open_store(tmp_path / "whole", verify=True)[0]
    np.testing.assert_array_equal(arrays["ptr"], np.arange(40 * 80_000 + 1))
    assert len(arrays["positions"]) == 40 * 80_000
