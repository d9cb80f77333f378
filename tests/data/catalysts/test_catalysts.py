"""One real relaxation of OC20 in every format is the same data; damaged files are refused with their names."""

from __future__ import annotations

import io
import json
import lzma
import pickle
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import ase.io
import lmdb
import numpy as np
import pytest
import torch
import yaml
from torch_geometric.data import Batch, Data

from geoeq.data import Dataset, Records, join, load, load_card, read_card
from geoeq.data.catalysts import OpenCatalystReader
from geoeq.data.catalysts.entries import list_entries
from geoeq.data.preparation.fetch import fetch_sources
from geoeq.data.splits import make_split
from geoeq.errors import DataError, GeoeqError

SAMPLE = "s2ef_sample/s2ef_sample/0"
FRAMES = 5


def member(name: str) -> bytes:
    card = load_card("oc20_s2ef_200k")
    with tarfile.open(Path(card.folder) / "sample" / "s2ef_sample.tar") as archive:
        content = archive.extractfile(f"{SAMPLE}.{name}.xz")
        assert content is not None
        return lzma.decompress(content.read())


@pytest.fixture(scope="session")
def frames() -> list[ase.Atoms]:
    """The first steps of a real relaxation, with tags that it could have."""
    found = ase.io.read(io.StringIO(member("extxyz").decode()), f":{FRAMES}", format="extxyz")
    for atoms in found:
        atoms.set_tags((np.arange(len(atoms)) > 80).astype(int) + (np.arange(len(atoms)) == 96))
    return found


NOTES = "".join(f"random17,frame{5 * i},{-700 - i / 8}\n" for i in range(FRAMES))
REFERENCES = np.array([-700 - i / 8 for i in range(FRAMES)])


def text(frames: list[ase.Atoms]) -> bytes:
    file = io.StringIO()
    ase.io.write(file, frames, format="extxyz")
    return file.getvalue().encode()


def fixed(atoms: ase.Atoms) -> np.ndarray:
    mask = np.zeros(len(atoms), dtype=bool)
    mask[atoms.constraints[0].index] = True
    return mask


def data(atoms: ase.Atoms, place: int, **others: object) -> Data:
    """As the program of the authors writes it."""
    return Data(
        pos=torch.tensor(atoms.positions, dtype=torch.float32),
        cell=torch.tensor(atoms.cell.array, dtype=torch.float32)[None],
        atomic_numbers=torch.tensor(atoms.numbers, dtype=torch.float32),
        natoms=len(atoms),
        tags=torch.tensor(atoms.get_tags()),
        fixed=torch.tensor(fixed(atoms), dtype=torch.float32),
        y=atoms.calc.results["energy"] - REFERENCES[place],
        force=torch.tensor(atoms.calc.results["forces"], dtype=torch.float32),
        sid=17,
        fid=5 * place,
        **others,
    )


def row(atoms: ase.Atoms, place: int) -> bytes:
    """As ASE's LMDB backend writes it."""
    values = {
        "numbers": atoms.numbers.tolist(),
        "positions": {"__ndarray__": [list(atoms.positions.shape), "float64", atoms.positions.ravel().tolist()]},
        "cell": atoms.cell.array.tolist(),
        "pbc": atoms.pbc.tolist(),
        "tags": atoms.get_tags().tolist(),
        "constraints": [atoms.constraints[0].todict()],
        "energy": atoms.calc.results["energy"] - REFERENCES[place],
        "forces": atoms.calc.results["forces"].tolist(),
        "data": {"sid": 17, "fid": 5 * place},
        "calculator": "unknown",
    }
    return zlib.compress(json.dumps(values, default=lambda value: value.tolist()).encode())


def write_lmdb(path: Path, values: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), subdir=False, map_size=1 << 26) as environment, environment.begin(write=True) as t:
        for key, value in values.items():
            t.put(key.encode(), value)
    return path


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def pack(path: Path, folder: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder, arcname="inner")
    return path


def write_texts(folder: Path, frames: list[ase.Atoms], suffix: str = ".xz") -> Path:
    """Two steps in the file 2, the others in the file 10."""
    packed: Callable[[bytes], bytes] = lzma.compress if suffix else bytes
    lines = NOTES.encode().splitlines(keepends=True)
    for name, part in (("2", slice(0, 2)), ("10", slice(2, None))):
        put(folder / f"{name}.extxyz{suffix}", packed(text(frames[part])))
        put(folder / f"{name}.txt{suffix}", packed(b"".join(lines[part])))
    put(folder / "README.md", b"read me")
    return folder


def write_pickled(folder: Path, frames: list[ase.Atoms]) -> Path:
    for name, part in (("data.0000", slice(0, 2)), ("data.0001", slice(2, None))):
        found = [data(atoms, place) for place, atoms in enumerate(frames)][part]
        values = {str(i): pickle.dumps(item, protocol=-1) for i, item in enumerate(found)}
        write_lmdb(folder / f"{name}.lmdb", values | {"length": pickle.dumps(len(found))})
    return folder


def write_rows(path: Path, frames: list[ase.Atoms]) -> Path:
    rows = {str(place + 1): row(atoms, place) for place, atoms in enumerate(frames)}
    rows |= {"7": rows["3"]}  # left out: the row 6 was deleted, and 7 is the last
    special = {"nextid": FRAMES + 2, "deleted_ids": [FRAMES + 1], "metadata": {"format": "x"}}
    del rows["7"]
    return write_lmdb(path, rows | {name: zlib.compress(json.dumps(value).encode()) for name, value in special.items()})


def write_batch(path: Path, frames: list[ase.Atoms]) -> Path:
    torch.save(Batch.from_data_list([data(atoms, place) for place, atoms in enumerate(frames)]), path)
    return path


def write_list(path: Path, frames: list[ase.Atoms]) -> Path:
    return put(path, pickle.dumps([data(atoms, place) for place, atoms in enumerate(frames)]))


FORMATS: dict[str, Callable[[Path, list[ase.Atoms]], Path]] = {
    "text, packed": lambda folder, frames: write_texts(folder / "a", frames),
    "text": lambda folder, frames: write_texts(folder / "a", frames, ""),
    "text in an archive": lambda folder, frames: pack(folder / "a.tar", write_texts(folder / "a", frames), "w"),
    "text in a compressed archive": lambda folder, frames: pack(
        folder / "a.tar.gz", write_texts(folder / "a", frames), "w:gz"
    ),
    "pickles in LMDB": lambda folder, frames: write_pickled(folder / "a", frames),
    "LMDB in a compressed archive": lambda folder, frames: pack(
        folder / "a.tar.gz", write_pickled(folder / "a", frames), "w:gz"
    ),
    "rows in LMDB": lambda folder, frames: write_rows(folder / "a.aselmdb", frames),
    "a batch": lambda folder, frames: write_batch(folder / "a.pt", frames),
    "a list": lambda folder, frames: write_list(folder / "a.pkl", frames),
}


def read(path: Path, task: str = "s2ef", **options: object) -> Records:
    return join(OpenCatalystReader(task, **options).read({path.name: path}), str(path))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_data(name, frames, tmp_path):
    records = read(FORMATS[name](tmp_path, frames), energy="adsorption")
    records.check(name)
    atoms = len(frames[0])
    energies = np.array([frame.calc.results["energy"] for frame in frames])
    np.testing.assert_array_equal(records.ptr, np.arange(FRAMES + 1) * atoms)
    np.testing.assert_allclose(records.columns["adsorption_energy"], energies - REFERENCES, rtol=0, atol=1e-9)
    assert records.columns["adsorption_energy"].dtype == np.float64
    if "text" in name:
        np.testing.assert_allclose(records.columns["total_energy"], energies, rtol=0, atol=1e-9)
    for found, expected in (
        (records.positions, [frame.positions for frame in frames]),
        (records.columns["forces"], [frame.calc.results["forces"] for frame in frames]),
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.concatenate(expected).astype(np.float32))
    np.testing.assert_array_equal(records.numbers, np.concatenate([frame.numbers for frame in frames]))
    np.testing.assert_array_equal(records.nodes["tags"], np.concatenate([frame.get_tags() for frame in frames]))
    np.testing.assert_array_equal(records.nodes["fixed"], np.concatenate([fixed(frame) for frame in frames]))
    assert 0 < records.nodes["fixed"].sum() < len(records.positions)
    np.testing.assert_array_equal(records.cell, np.float32([frame.cell.array for frame in frames]))
    assert records.pbc.all()
    assert records.graphs["sid"].tolist() == [17] * FRAMES
    assert records.graphs["fid"].tolist() == [0, 5, 10, 15, 20]


def test_a_trajectory(frames, tmp_path):
    path = tmp_path / "random1000163.traj"
    ase.io.write(path, frames)
    records = read(path)
    assert set(records.columns) == {"total_energy", "forces"}
    assert records.graphs["sid"].tolist() == [1000163] * FRAMES
    np.testing.assert_allclose(records.columns["total_energy"], [atoms.calc.results["energy"] for atoms in frames])
    relaxed = read(path, "is2re")
    assert len(relaxed.ptr) == 2
    np.testing.assert_array_equal(relaxed.positions, frames[0].positions.astype(np.float32))
    np.testing.assert_array_equal(relaxed.columns["relaxed_positions"], frames[-1].positions.astype(np.float32))
    assert relaxed.columns["initial_energy"][0] == frames[0].calc.results["energy"]
    assert relaxed.columns["relaxed_energy"][0] == frames[-1].calc.results["energy"]


def relaxation(frames: list[ase.Atoms], initial: bool = True) -> Data:
    item = data(frames[0], 0, y_relaxed=-1.25, pos_relaxed=torch.tensor(frames[-1].positions, dtype=torch.float32))
    if initial:
        item.y_init = 2.5
    del item.y, item.force
    return item


@pytest.mark.parametrize("initial", [True, False])
def test_relaxations(frames, tmp_path, initial):
    path = write_lmdb(tmp_path / "x.lmdb", {"0": pickle.dumps(relaxation(frames, initial))})
    records = read(path, "is2re", energy="adsorption")
    assert set(records.columns) == {"relaxed_energy", "relaxed_positions"} | ({"initial_energy"} if initial else set())
    assert records.columns["relaxed_energy"].tolist() == [-1.25]
    np.testing.assert_array_equal(records.columns["relaxed_positions"], frames[-1].positions.astype(np.float32))


def test_references_make_total_energies(frames, tmp_path):
    files = {"x.pkl": write_list(tmp_path / "x.pkl", frames), "ref.pkl": tmp_path / "ref.pkl"}
    files["ref.pkl"].write_bytes(pickle.dumps({"random17": -700.5, "random18": np.float64(1)}))
    reader = OpenCatalystReader("s2ef", energy="adsorption", references="ref.pkl")
    records = join(reader.read(files), "x")
    np.testing.assert_allclose(records.columns["total_energy"], records.columns["adsorption_energy"] - 700.5)
    files["ref.pkl"] = put(tmp_path / "other.pkl", pickle.dumps({"random18": 1.0}))
    with pytest.raises(DataError, match=r"the references lack 'random17'"):
        join(reader.read(files), "x")


def test_parts_are_folders_of_the_sources(frames, tmp_path):
    write_texts(tmp_path / "a" / "is2re" / "all" / "train", frames[:2])
    write_texts(tmp_path / "a" / "is2re" / "all" / "val_id", frames[:2])
    write_texts(tmp_path / "a" / "is2re" / "10k" / "train", frames[:2])
    files = {"a.tar": pack(tmp_path / "a.tar", tmp_path / "a", "w")}
    reader = OpenCatalystReader("s2ef", parts={"v": "all/val_id", "t": "is2re/all/train"})
    shards = reader.shards(files)
    assert [shard.part for shard in shards] == ["v", "v", "t", "t"]
    names = [list_entries(files["a.tar"])[shard.entry].name for shard in shards]
    assert names[2:] == ["inner/is2re/all/train/2.extxyz.xz", "inner/is2re/all/train/10.extxyz.xz"]
    whole = OpenCatalystReader("s2ef", parts={"x": "a.tar"}).shards(files)
    assert len(whole) == 6
    with pytest.raises(DataError, match=r"The part 'x' has no file in .*a.tar"):
        OpenCatalystReader("s2ef", parts={"x": "all/val_ood"}).shards(files)


def test_large_lmdb_files_are_read_in_pieces(frames, tmp_path, monkeypatch):
    monkeypatch.setattr("geoeq.data.catalysts.reader._SHARD", 2)
    path = write_list(tmp_path / "x.pkl", frames)
    whole = read(path, energy="total")
    for other in (
        write_pickled(tmp_path / "a", frames),
        write_rows(tmp_path / "a.aselmdb", frames),
    ):
        reader = OpenCatalystReader("s2ef", energy="total")
        assert len(reader.shards({"a": other})) == 3
        np.testing.assert_array_equal(join(reader.read({"a": other}), "x").positions, whole.positions)


def test_splits_are_the_published_parts():
    card = load_card("oc20_is2re")
    parts = {"train_10k": 10000, "train_100k": 100000, "train": 460328}
    parts |= {"val_id": 24943, "val_ood_ads": 24961, "val_ood_cat": 24963, "val_ood_both": 24987}
    count = sum(parts.values())
    split = make_split(card.splits["ood_cat"], count, "here", parts)
    assert split["train"][0] == 110000
    assert split["train"][-1] + 1 == split["valid"][0] == 570328
    assert split["test"][0] == 570328 + 24943 + 24961
    assert len(split["test"]) == 24963
    with pytest.raises(DataError, match=r"the part 'val_id' has 24942 records instead of 24943"):
        make_split(card.splits["id"], count, "here", parts | {"val_id": 24942})
    with pytest.raises(DataError, match=r"No part of the data set is called 'val_id'"):
        make_split(card.splits["id"], count, "here", {"train": 460328})


@pytest.mark.parametrize(
    "name",
    [
        *("oc20_s2ef_200k", "oc20_s2ef_2m", "oc20_s2ef_20m", "oc20_s2ef_all", "oc20_is2re", "oc22_s2ef"),
        *("oc20_relaxations_s2ef", "oc20_relaxations_is2re"),
    ],
)
def test_samples(name):
    dataset = load(name, sample=True)
    batch = dataset.batch(range(len(dataset)), dtype=torch.float64)
    assert set(dataset.targets) == set(load_card(name).targets)
    assert batch.fixed.dtype == torch.bool
    assert batch.tags.max() <= 2
    assert batch.pbc.all()
    assert (batch.sid > 0).all()


@pytest.mark.parametrize(("name", "sizes"), [("s2ef", (4749, 250, 250)), ("is2re", (24, 3, 3))])
def test_thirty_relaxations_are_divided_whole(name, sizes):
    card = load_card(f"oc20_relaxations_{name}")
    split = card.splits["systems"]
    named = [file for files in split.lists.values() for file in files]
    assert sorted(named) == [source.file for source in card.sources]
    assert tuple(card.splits[card.default_split].sizes.values()) == sizes
    counts = {source.file: 1 + place % 3 for place, source in enumerate(card.sources)}
    total = sum(counts.values())
    arrays = {"positions": np.zeros((total, 3)), "ptr": np.arange(total + 1)}
    card = replace(card, splits={"systems": replace(split, sha256=None)})  # these are other counts
    found = Dataset(card, arrays, parts=counts).split("systems")
    file = np.repeat(list(counts), list(counts.values()))
    assert sorted(np.concatenate(list(found.values()))) == list(range(total))
    for part, files in split.lists.items():
        assert set(file[found[part]]) == set(files)


def test_the_sample_is_the_relaxation():
    dataset = load("oc20_s2ef_200k", sample=True)
    assert len(dataset) == 27
    assert dataset.targets["total_energy"][-1] == -795.66874518
    assert dataset.targets["energy"][-1] == 0
    assert np.abs(np.asarray(dataset.targets["forces"])[-97:][~dataset.batch([26]).fixed.numpy()]).max() < 0.05


BAD: dict[str, tuple[Callable[[Path, list[ase.Atoms]], Path], str]] = {
    "fewer lines": (lambda folder, frames: short_notes(folder, frames, 3), r"has 3 lines, fewer than"),
    "more lines": (lambda folder, frames: short_notes(folder, frames, 9), r"has 5 structures, and .* 9 lines"),
    "other lines": (
        lambda folder, frames: short_notes(folder, frames, 0, b"17,x\n" * 5),
        r"line 1: the line must be system, frame and",
    ),
    "an empty archive": (lambda folder, frames: pack(folder / "a.tar", empty(folder / "a"), "w"), "has no file in"),
    "no energy": (
        lambda folder, frames: put(folder / "a.extxyz", b"1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n"),
        "no 'energy'",
    ),
    "a tag of 3": (
        lambda folder, frames: write_list(folder / "a.pkl", [tagged(frames[0], 3)]),
        "a tag is not 0, 1",
    ),
    "no Data": (
        lambda folder, frames: put(folder / "a.pkl", pickle.dumps([{"pos": 1}])),
        "contains a dict instead of Data of PyG",
    ),
    "a missing key": (
        lambda folder, frames: write_lmdb(folder / "a.lmdb", {"length": pickle.dumps(2)}),
        "structure 0: it is missing",
    ),
    "a length": (
        lambda folder, frames: write_lmdb(folder / "a.lmdb", {"length": pickle.dumps([2])}),
        "is invalid. The file was altered",
    ),
    "no attribute": (
        lambda folder, frames: put(folder / "a.pkl", pickle.dumps([Data(pos=torch.ones(1, 3))])),
        "it has no 'atomic_numbers'",
    ),
    "another shape": (
        lambda folder, frames: put(folder / "a.pkl", pickle.dumps([reshaped(frames)])),
        r"\[97, 2\] instead of \[97, 3\]",
    ),
    "an inner bomb": (
        lambda folder, frames: put(folder / "a.extxyz.xz", lzma.compress(bytes(120 << 20))),
        "unpacks to more than",
    ),
    "a row that is a bomb": (
        lambda folder, frames: write_lmdb(folder / "a.aselmdb", {"1": zlib.compress(bytes(70 << 20))}),
        "row 1: .* unpacks to more",
    ),
    "a path that climbs out": (lambda folder, frames: climbing(folder / "a.tar"), "leads out of the archive"),
    "a path that climbs out, compressed": (
        lambda folder, frames: climbing(folder / "a.tar.gz"),
        "leads out of the archive",
    ),
    "a link": (lambda folder, frames: linked(folder / "a.tar"), "is a link or a device"),
    "code": (
        lambda folder, frames: write_lmdb(folder / "a.lmdb", {"0": pickle.dumps(Path("x"))}),
        "it asks for 'pathlib",
    ),
}


def short_notes(folder: Path, frames: list[ase.Atoms], count: int, content: bytes | None = None) -> Path:
    put(folder / "a" / "0.extxyz", text(frames))
    put(
        folder / "a" / "0.txt",
        content if content is not None else (NOTES * 2).encode().splitlines(keepends=True)[0] * count,
    )
    return folder / "a"


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def tagged(atoms: ase.Atoms, tag: int) -> ase.Atoms:
    other = atoms.copy()
    other.calc = atoms.calc
    other.set_tags(tag)
    return other


def reshaped(frames: list[ase.Atoms]) -> Data:
    item = data(frames[0], 0)
    item.force = item.force[:, :2]
    return item


def climbing(path: Path) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        archive.addfile(tarfile.TarInfo("x/../../../0.extxyz"), io.BytesIO())
    return path


def linked(path: Path) -> Path:
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("0.extxyz")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named(name, frames, tmp_path):
    write, message = BAD[name]
    folder = empty(tmp_path / "in")
    path = write(folder, frames)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message) as error:
        read(path, energy="total")
    assert str(folder / "a") in str(error.value)
    assert set(tmp_path.rglob("*")) == before, "nothing is left on the disk"


def test_the_kind_of_energies_must_be_specified(frames, tmp_path):
    path = write_list(tmp_path / "x.pkl", frames)
    with pytest.raises(DataError, match=r"x.pkl: structure 0: .*specify in the options of the card whether 'energy'"):
        read(path)
    for options in ({"task": "s3ef"}, {"task": "s2ef", "energy": "free"}):
        with pytest.raises(ValueError, match="must be"):
            OpenCatalystReader(**options)


def files_in(path: Path) -> Iterable[Path]:
    return (
        sorted(item for item in path.rglob("*") if item.is_file() and item.suffix != ".md") if path.is_dir() else [path]
    )


FUZZED = [
    "text, packed",
    "text",
    "text in an archive",
    "text in a compressed archive",
    "pickles in LMDB",
    "rows in LMDB",
]


@pytest.mark.parametrize("name", [*FUZZED, "a batch", "a list", "trajectory"])
def test_altered_files_are_read_or_refused_with_their_name(name, frames, tmp_path, altered):
    folder = empty(tmp_path / "in")
    if name == "trajectory":
        path = folder / "a.traj"
        ase.io.write(path, frames[:2])
    else:
        path = FORMATS[name](folder, frames[:3])
    random, refused = np.random.default_rng(0), 0
    for _ in range(40):
        victim = files_in(path)[int(random.integers(len(list(files_in(path)))))]
        content = victim.read_bytes()
        victim.write_bytes(altered(content, random))
        refused += bool(refusal(path))
        victim.write_bytes(content)
    assert refused >= 3, "many changes fall into values, or into what LMDB does not use"
    assert not [item for item in tmp_path.iterdir() if item.name != "in"]


def refusal(path: Path) -> str:
    try:
        read(path, energy="adsorption")
    except GeoeqError as error:
        assert str(path.parent) in str(error), "the file is named"  # noqa: PT017
        return str(error)
    return ""


def test_a_folder_instead_of_the_archive(frames, root, tmp_path):
    """From what somebody has unpacked to the places of a split, and not again while it is the same."""
    content = {
        "name": "mine",
        "title": "mine",
        "reader": "geoeq.data.catalysts.OpenCatalystReader",
        "licence": "none",
        "citation": "none",
        "options": {"task": "s2ef", "energy": "total", "parts": {"train": "all/train", "val": "all/val"}},
        "sources": [{"file": "mine.tar.gz", "url": "https://example.org/mine.tar.gz", "md5": "0" * 32}],
        "targets": {"energy": {"column": "total_energy", "unit": "eV", "report": "meV"}},
        "default_target": "energy",
        "splits": {
            "id": {
                "method": "parts",
                "parts": {"train": "train", "valid": "val", "test": "val"},
                "sizes": {"train": 5, "valid": 2, "test": 2},
            }
        },
        "default_split": "id",
    }
    card = put(tmp_path / "mine" / "card.yaml", yaml.safe_dump(content).encode())
    raw = root / "mine" / "raw" / "mine"
    write_pickled(raw / "all" / "train", frames)
    write_list(raw / "all" / "val" / "x.pkl", frames[:2])
    dataset = load(card)
    assert dataset.parts == {"train": 5, "val": 2}
    assert {part: places.tolist() for part, places in dataset.split().items()} == {
        "train": [0, 1, 2, 3, 4],
        "valid": [5, 6],
        "test": [5, 6],
    }
    np.testing.assert_array_equal(dataset[5].pos, dataset[0].pos)
    before = (dataset.folder / "index.json").stat().st_mtime_ns
    assert (load(card).folder / "index.json").stat().st_mtime_ns == before
    write_list(raw / "all" / "val" / "x.pkl", frames[2:4])
    np.testing.assert_array_equal(load(card)[5].pos, dataset[2].pos)
    shutil.rmtree(raw)
    put(raw.with_name("mine.tar.gz"), b"x")
    with pytest.raises(DataError, match=r"mine.tar.gz has the md5 9dd4e461268c8034f5c8564e155c67a6 instead of 0{32}"):
        fetch_sources(read_card(card), root)
