"""What data is in a pickle is built, by whatever version it was written; nothing in it is run."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from geoeq.data.pickles import Bag, load_pickle, read_pickle
from geoeq.errors import DataError

PLAIN = [
    {"a": [1, -2, 3.5, 1 << 80, None, True], 7: (1, 2, 3, 4), ("k", 2): "ü", b"b": {1, 2}},
    [(), [], {}, set(), frozenset({"x"}), (1,), (1, 2), b"\x00\xff", bytearray(b"ab"), "a" * 300],
    collections.OrderedDict(a=1, b=[collections.OrderedDict()]),
    collections.defaultdict(list, a=[1]),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN[:1] + PLAIN[2:])
def test_plain_containers(value, protocol):
    assert load_pickle(pickle.dumps(value, protocol), "here") == value


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_more_containers(protocol):
    value = PLAIN[1] if protocol > 4 else [*PLAIN[1][:8], *PLAIN[1][9:]]  # bytearray is called by its class before 5
    assert load_pickle(pickle.dumps(value, protocol), "here") == value


def test_what_refers_to_itself():
    value: list[object] = [1]
    value.append(value)
    found = load_pickle(pickle.dumps(value), "here")
    assert found[1] is found


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    np.array([True, False]),
    np.zeros((0, 3), dtype=np.float32),
    np.arange(3, dtype=">i4"),
    np.array(["ab", "c"]),
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_arrays(array, protocol):
    first, again, scalar = load_pickle(pickle.dumps([array, array, np.float32(1.5)], protocol), "here")
    np.testing.assert_array_equal(first, array)
    assert first.dtype == array.dtype
    assert first is again
    assert scalar == np.float32(1.5)


TENSORS = [
    torch.arange(6.0).reshape(2, 3),
    torch.arange(24.0).reshape(2, 3, 4)[:, 1:, ::2],
    torch.arange(6).reshape(2, 3).T,
    torch.tensor(3.5, dtype=torch.float64),
    torch.zeros(0, 3),
    torch.tensor([True, False]),
    torch.ones(2, dtype=torch.float16),
]


def saved(value: object, new: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


@pytest.mark.parametrize("way", ["archive", "stream", "pickle"])
def test_tensors(way, tmp_path):
    shared = torch.arange(8.0)
    value = {"list": TENSORS, "views": (shared[2:4], shared), "parameter": torch.nn.Parameter(torch.ones(2))}
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(value) if way == "pickle" else saved(value, way == "archive"))
    found = read_pickle(path)
    for tensor, array in zip(
        [*TENSORS, *value["views"], value["parameter"]], [*found["list"], *found["views"], found["parameter"]]
    ):
        np.testing.assert_array_equal(array, tensor.detach().numpy())
        assert array.dtype == tensor.detach().numpy().dtype


def molecule(**others: object) -> Data:
    return Data(z=torch.tensor([1, 8]), pos=torch.ones(2, 3), y=-1.5, natoms=2, **others)


@pytest.mark.parametrize("way", [pickle.dumps, lambda value: saved(value, False)])
def test_data_of_pyg(way):
    for bag in load_pickle(way([molecule(sid=3), molecule(sid=4)]), "here"):
        assert isinstance(bag, Bag)
        assert bag.kind == "Data"
        assert bag.attributes().keys() == {"z", "pos", "y", "natoms", "sid"}
        np.testing.assert_array_equal(bag.attributes()["z"], [1, 8])


def test_a_batch_of_pyg(tmp_path):
    batch = Batch.from_data_list([molecule(), molecule()])
    torch.save(batch, tmp_path / "x.pt")
    found = read_pickle(tmp_path / "x.pt").attributes()
    assert found.keys() == set(batch.keys())
    np.testing.assert_array_equal(found["ptr"], [0, 2, 4])


def old_data(protocol: int) -> bytes:
    """Data as PyG 1 pickled it: its attributes are in its own dict, and those that are not set are None."""
    state = {
        "x": None,
        "edge_index": None,
        "edge_attr": None,
        "y": -1.5,
        "pos": torch.ones(2, 3),
        "z": torch.tensor([1, 8]),
    }
    content = pickle.dumps(_Stand(state), protocol)
    names = [(b"geoeq_stand_in", b"torch_geometric.data.data"), (b"_Stand", b"Data")]
    return replaced(content, names, protocol)


class _Stand:
    def __init__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)


_Stand.__module__ = "geoeq_stand_in"


def replaced(content: bytes, names: list[tuple[bytes, bytes]], protocol: int) -> bytes:
    for old, new in names:
        if protocol >= 4:
            content = content.replace(bytes([len(old)]) + old, bytes([len(new)]) + new)
        else:
            content = content.replace(old, new)
    return content


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_data_of_pyg_1(protocol, monkeypatch):
    module = type(os)("geoeq_stand_in")
    module._Stand = _Stand
    monkeypatch.setitem(__import__("sys").modules, "geoeq_stand_in", module)
    content = old_data(protocol)
    content = (
        content.replace(content[2:11], (len(content) - 11).to_bytes(8, "little").rjust(9, b"\x95"))
        if protocol == 4
        else content
    )
    found = load_pickle(content, "here").attributes()
    assert found.keys() == {"y", "pos", "z"}
    np.testing.assert_array_equal(found["pos"], np.ones((2, 3)))


class Trap:
    def __init__(self, called: object, *arguments: object) -> None:
        self.called, self.arguments = called, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.called, self.arguments


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAPS = {
    "posix.mkdir": Trap(os.mkdir, "trapped"),
    "builtins.eval": Trap(eval, "__import__('os').mkdir('trapped')"),
    "builtins.getattr": Trap(getattr, [], "append"),
    "pathlib.PosixPath": Path("x"),
    "torch.nn.modules.linear.Linear": torch.nn.Linear(1, 1),
    "an array of objects": np.array([{}, None], dtype=object),
    "torch.BFloat16Storage": torch.ones(1, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("way", ["pickle", "archive", "stream"])
@pytest.mark.parametrize("name", TRAPS)
def test_what_is_no_data_is_refused_by_its_name(name, way, here):
    path = here / "bad.pt"
    value = [molecule(), {"x": TRAPS[name]}]
    path.write_bytes(pickle.dumps(value) if way == "pickle" else saved(value, way == "archive"))
    with pytest.raises(DataError) as error:
        read_pickle(path)
    assert str(error.value).startswith(str(path))
    assert name in str(error.value)
    assert "Nothing was run" in str(error.value)
    assert list(here.iterdir()) == [path]


OPCODES = {
    b"(cos\nmkdir\nX\x07\x00\x00\x00trappedo.": "OBJ|mkdir",
    b"(X\x07\x00\x00\x00trappedios\nmkdir\n.": "INST",
    b"Psomething\n.": "PERSID",
    b"\x80\x02\x82\x01.": "EXT1",
    b"\x80\x02K\x01Q.": "outside the pickle",
    b"cbuiltins\ndict\n)R.": "a call of 'builtins.dict'",
    b"\x80\x02]N\x85R.": "a call of an object",
    b"\x80\x02]}b.": "a state for an object",
    b"\x80\x02ctorch_geometric.data.data\nData\nK\x01\x85\x81.": "an object of 'torch_geometric.data.data.Data'",
}


@pytest.mark.parametrize("content", OPCODES)
def test_opcodes_that_could_run_something(content, here):
    with pytest.raises(DataError, match=f"^here: it asks for .*({OPCODES[content]})"):
        load_pickle(content, "here")
    assert list(here.iterdir()) == []


HARMFUL = {
    "a memo of two billion places": b"\x80\x02K\x01r\xff\xff\xff\x7f.",
    "bytes without an end": b"\x80\x04\x8e" + (1 << 62).to_bytes(8, "little") + b"x.",
    "a frame without an end": b"\x80\x04\x95" + (1 << 62).to_bytes(8, "little") + b"K\x01.",
    "a key that is a tower of tuples": b"\x80\x02}" + b"K\x01" + b"\x85" * 200_000 + b"K\x01s.",
    "a number of a million digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "a stack that is empty": b"\x80\x02\x86.",
    "a mark that is not there": b"\x80\x02t.",
    "a list that is none": b"\x80\x02K\x01K\x02a.",
    "a place of the memo that is not there": b"\x80\x02h\x07.",
    "no end": b"\x80\x02]",
    "nothing": b"",
    "a tensor beyond its storage": pickle.dumps(torch.ones(4)).replace(b"K\x04\x85", b"K\x09\x85"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_pickles(name):
    if name.startswith(("a memo", "a frame")):
        assert load_pickle(HARMFUL[name], "here") == 1, "they cost nothing"
        return
    with pytest.raises(DataError, match=r"^here: "):
        load_pickle(HARMFUL[name], "here")


def test_a_tensor_that_makes_much_of_little(tmp_path):
    """A stride of zero would make a terabyte of one number."""
    torch.save(torch.ones(1).expand(1 << 38), tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"x.pt: .*beyond its storage"):
        read_pickle(tmp_path / "x.pt")


def test_an_archive_that_is_a_bomb(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"N." + bytes(80 << 20))
    with pytest.raises(DataError, match=r"bomb.pt unpacks to more than"):
        read_pickle(path)
    with pytest.raises(DataError, match=r"bomb.pt has \d+ bytes; pickles of more than 10 bytes are not read"):
        read_pickle(path, limit=10)


def test_an_archive_of_something_else(tmp_path):
    path = tmp_path / "x.pt"
    for name, message in (("a/../../data.pkl", "leads out"), ("a/b", "it contains no data.pkl")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"N.")
        with pytest.raises(DataError, match=f"x.pt: .*{message}"):
            read_pickle(path)


def test_files_of_the_oldest_torch_are_refused(tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "x.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(DataError, match=r"x.pt: it was written by a torch before 0.2"):
        read_pickle(tmp_path / "x.pt")


def refusal(path: Path) -> str:
    try:
        read_pickle(path)
    except DataError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("way", ["pickle", "archive", "stream"])
def test_altered_files_are_read_or_refused_with_their_name(way, here, altered):
    value = [molecule(sid=3), {"a": np.arange(3), "b": {1, 2}, "c": torch.ones(3, 2).T}]
    content = pickle.dumps(value) if way == "pickle" else saved(value, way == "archive")
    path, random = here / "x.pt", np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        path.write_bytes(altered(content, random))
        message = refusal(path)
        refused += bool(message)
        assert not message or (message.startswith(str(path)) and len(message) < 1000)
    assert refused > 100
    assert list(here.iterdir()) == [path]


def test_every_opcode_is_known_or_refused():
    """A new opcode of Python is refused until it is looked at."""
    for opcode in pickletools.opcodes:
        with pytest.raises(DataError):
            load_pickle(opcode.code.encode("latin-1") + b"\xff" * 3, "here")
