"""The cards of published sets: files placed by hand in their formats, variants, and splits by files and lists."""

from __future__ import annotations

import io
import lzma
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
from ase import units

from geoeq.cli.data_reports import info_lines
from geoeq.data import load, load_card
from geoeq.data.formats.extxyz import ExtxyzReader
from geoeq.errors import DataError

ETHANOL = Path(load_card("rmd17").folder, "sample", "rmd17_ethanol.npz")


def raw(root: Path, name: str) -> Path:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    return folder


def rmd17_archive(path: Path, copies: int, short: bool = False, outside: bool = False) -> None:
    """The archive as published, of ``copies`` times the sample and lists of places in it."""
    random = np.random.default_rng(0)
    with np.load(ETHANOL) as sample:
        arrays = {name: np.concatenate([sample[name]] * copies) for name in ("coords", "energies", "forces")}
        numbers = sample["nuclear_charges"]
    content = io.BytesIO()
    np.savez(content, nuclear_charges=numbers, old_indices=np.arange(len(arrays["energies"])), **arrays)
    members = {"rmd17/npz_data/rmd17_ethanol.npz": content.getvalue(), "rmd17/readme.txt": b"Citation"}
    for number in range(1, 6):
        places = random.permutation(copies * 100)[:2000] + (10**6 if outside else 0)
        for part, chosen in (("train", places[:1000]), ("test", places[1000:])):
            lines = "\n".join(map(str, chosen[: 999 if short else 1000]))
            members[f"rmd17/splits/index_{part}_{number:02d}.csv"] = lines.encode()
    with tarfile.open(path, "w:bz2", compresslevel=1) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_rmd17_has_its_published_splits(root):
    path = raw(root, "rmd17") / "rmd17.tar.bz2"
    rmd17_archive(path, copies=21)
    dataset = load("rmd17/ethanol")
    assert len(dataset) == 2100
    with np.load(ETHANOL) as sample:
        np.testing.assert_allclose(dataset.targets["energy"][:100], sample["energies"] * units.kcal / units.mol)
    with tarfile.open(path) as archive:
        texts = [archive.extractfile(f"rmd17/splits/index_{part}_03.csv").read() for part in ("train", "test")]
    train, test = ([int(word) for word in text.split()] for text in texts)
    split = dataset.split("split_03")
    assert split["test"].tolist() == test, "in the order of the publication"
    assert {*split["train"].tolist()} | {*split["valid"].tolist()} == {*train}
    assert [len(split[part]) for part in ("train", "valid", "test")] == [950, 50, 1000]
    again = load("rmd17").split("split_03")
    assert all(np.array_equal(split[part], again[part]) for part in split)
    assert not np.array_equal(split["test"], dataset.split()["test"])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ({"short": True}, r"index_train_01.csv: it has 999 different indices instead of 1000"),
        ({"outside": True}, r"the list 'train_01' has indices outside the 2100 records"),
    ],
)
def test_lists_that_cannot_be(root, harm, message):
    rmd17_archive(raw(root, "rmd17") / "rmd17.tar.bz2", copies=21, **harm)
    with pytest.raises(DataError, match=message):
        load("rmd17").split()


def test_a_molecule_that_is_not_in_the_archive(root):
    rmd17_archive(raw(root, "rmd17") / "rmd17.tar.bz2", copies=21)
    with pytest.raises(
        DataError, match=r"the archive contains no 'rmd17/npz_data/rmd17_aspirin.npz', but rmd17/npz_data/rmd17_e"
    ):
        load("rmd17/aspirin")


def test_the_sample_of_rmd17():
    dataset = load("rmd17", sample=True)
    assert len(dataset) == 100
    assert dataset.targets["energy"][0] == pytest.approx(-4209.4657843064815, abs=1e-9), "eV"
    assert dataset.targets["forces"][0].tolist() == pytest.approx([-4.15950961, 0.10729389, 3.61777644], abs=1e-12)
    assert {part: len(places) for part, places in dataset.split().items()} == {"train": 48, "valid": 2, "test": 50}


def test_variants():
    assert load_card("md22/dha").sources[0].file == "md22_DHA.npz"
    assert load_card("md22").variant == "ac-ala3-nhme"
    assert load_card("md22/stachyose").splits["standard"].sizes == {"train": 7600, "valid": 400, "test": 19272}
    with pytest.raises(DataError, match=r"No variant of md22 is called 'dah'. Did you mean 'dha'\?"):
        load_card("md22/dah")
    with pytest.raises(DataError, match="No variant of qm7 is called 'x'"):
        load_card("qm7/x")
    with pytest.raises(DataError, match="The data set 'rmd17' has no sample"):
        load("rmd17/aspirin", sample=True)
    text = "\n".join(info_lines("rmd17/uracil"))
    assert "variant rmd17/uracil (this one)" in text
    assert "train train_01, valid 50, test test_01; lists, seed 0" in text


def test_two_variants_have_two_caches(root):
    folder = raw(root, "md22")
    with np.load(ETHANOL) as sample:
        arrays = {name: sample[key] for name, key in (("z", "nuclear_charges"), ("R", "coords"), ("F", "forces"))}
        np.savez(folder / "md22_DHA.npz", E=sample["energies"][:, None], **arrays)
        np.savez(folder / "md22_stachyose.npz", E=sample["energies"][:, None] + 1, **arrays)
    dha, stachyose = load("md22/dha"), load("md22/stachyose")
    np.testing.assert_allclose(stachyose.targets["energy"] - dha.targets["energy"], units.kcal / units.mol, rtol=1e-9)
    assert dha.folder != stachyose.folder
    with pytest.raises(DataError, match="do not fit into the 100 records"):
        dha.split()


def test_splits_by_files(root):
    """Each test set of 3BPA is a file; the valid set is of the training file."""
    folder = raw(root, "3bpa")
    card = load_card("3bpa")
    for number, source in enumerate(card.sources):
        text = "".join(
            f"2\nenergy={number}.{place:04d} Properties=species:S:1:pos:R:3:forces:R:3\nC 0 0 0 0 0 1\nH 0 0 1 0 0 -1\n"
            for place in range(500 if "train" in source.file else 7)
        )
        (folder / source.file).write_text(text)
    dataset = load("3bpa")
    order = [source.file for source in card.sources]
    split = dataset.split("mixed-600k")
    energies = {part: dataset.targets["energy"][places] for part, places in split.items()}
    assert {part: len(places) for part, places in split.items()} == {"train": 450, "valid": 50, "test": 7}
    assert {int(energy) for energy in [*energies["train"], *energies["valid"]]} == {order.index("train_mixedT.xyz")}
    assert {int(energy) for energy in energies["test"]} == {order.index("test_600K.xyz")}
    assert len({*energies["train"]} | {*energies["valid"]}) == 500


def test_the_training_set_of_3bpa_alone_has_a_split(root, monkeypatch):
    """The sets of the publication need all files, and the one that is missing is named."""
    frame = "2\nenergy={}.5 Properties=species:S:1:pos:R:3:forces:R:3\nC 0 0 0 0 0 1\nH 0 0 1 0 0 -1\n"
    (raw(root, "3bpa") / "train_300K.xyz").write_text("".join(frame.format(place) for place in range(500)))

    def refuse(*arguments: object, **options: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    dataset = load("3bpa/training")
    split = dataset.split()
    assert {part: len(places) for part, places in split.items()} == {"train": 400, "valid": 50, "test": 50}
    assert len({int(dataset.targets["energy"][place]) for places in split.values() for place in places}) == 500
    with pytest.raises(DataError, match=r"train_mixedT\.xyz"):
        load("3bpa")


def test_the_samples_of_3bpa_and_lips():
    dataset = load("3bpa", sample=True)
    assert dataset.targets["energy"][0] == -17660.461737861464
    assert dataset.numbers[:27].tolist() == dataset.numbers[27:54].tolist()
    lips = load("lips", sample=True)
    assert lips[0].pbc.all()
    elements, counts = np.unique(lips.numbers[:83], return_counts=True)
    assert dict(zip(elements.tolist(), counts.tolist())) == {3: 27, 15: 12, 16: 44}
    np.testing.assert_allclose([lips.targets["forces"][i * 83 : (i + 1) * 83].sum() for i in range(10)], 0, atol=0.2)


@pytest.mark.parametrize(
    ("name", "file", "layout"),
    [("spice", "SPICE-2.0.1.hdf5", "spice"), ("ani1x", "ani1x-release.h5", "ani-1x"), ("qm7x", "1000.xz", "qm7-x")],
)
def test_hdf5_sets(root, name, file, layout, tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(
        "geoeq.data.preparation.fetch._check", lambda source, path: None
    )  # of two structures, not of millions
    numbers, energy = {"spice": "atomic_numbers", "ani-1x": "atomic_numbers", "qm7-x": "atNUM"}, [-1.0, -2.0]
    places = {"spice": "conformations", "ani-1x": "coordinates", "qm7-x": "atXYZ"}
    forces = {"spice": "dft_total_gradient", "ani-1x": "wb97x_dz.forces", "qm7-x": "totFOR"}
    energies = {"spice": "dft_total_energy", "ani-1x": "wb97x_dz.energy", "qm7-x": "ePBE0+MBD"}
    plain = tmp_path / "plain.h5"
    random = np.random.default_rng(0)
    with h5py.File(plain, "w") as content:
        for place in range(2) if layout == "qm7-x" else [slice(None)]:
            group = content.create_group(f"1/Geom-m1-i1-c1-{place}" if layout == "qm7-x" else "water")
            group[numbers[layout]] = [8, 1, 1]
            group[places[layout]] = random.normal(size=(2, 3, 3))[place]
            group[forces[layout]] = np.ones((2, 3, 3))[place]
            group[energies[layout]] = np.array(energy)[place] if layout != "qm7-x" else [energy[place]]
    folder = raw(root, name)
    if layout == "qm7-x":
        for source in load_card(name).sources:
            (folder / source.file).write_bytes(lzma.compress(plain.read_bytes(), preset=0))
    else:
        (folder / file).write_bytes(plain.read_bytes())
    dataset = load(name)
    unit = 1.0 if layout == "qm7-x" else units.Hartree
    assert dataset.targets["energy"][:2].tolist() == pytest.approx([-unit, -2 * unit], rel=1e-14)
    force = {"spice": -units.Hartree / units.Bohr, "ani-1x": units.Hartree, "qm7-x": 1.0}[layout]
    np.testing.assert_allclose(dataset.targets["forces"], force)


def test_water_out_of_the_archive_of_deepmd(root):
    folder = raw(root, "water")
    with tarfile.open(folder / "deepmd-kit-2.2.7.tar.gz", "w:gz") as archive:
        for system in range(4):
            place = f"deepmd-kit-2.2.7/examples/water/data/data_{system}"
            contents = {"type.raw": b"0 1 1", "type_map.raw": b"O H"}
            for name, array in {
                "coord": np.random.default_rng(system).uniform(0, 5, size=(80 if system != 1 else 160, 9)),
                "force": np.zeros((80 if system != 1 else 160, 9)),
                "energy": np.full(80 if system != 1 else 160, float(system)),
                "box": np.tile(np.eye(3).ravel() * 5, (80 if system != 1 else 160, 1)),
            }.items():
                content = io.BytesIO()
                np.save(content, array)
                contents[f"set.000/{name}.npy"] = content.getvalue()
            for name, data in contents.items():
                member = tarfile.TarInfo(f"{place}/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    dataset = load("water")
    split = dataset.split()
    assert {*dataset.targets["energy"][split["train"]].tolist()} == {0.0, 1.0, 2.0}
    assert {*dataset.targets["energy"][split["valid"]].tolist()} == {3.0}


def test_the_cache_is_written_in_chunks_with_notes(root, monkeypatch):
    """A cache of many chunks is that of one, and keeps the notes and the number of structures of each file."""
    dataset = load("3bpa", sample=True)
    assert any(note.startswith("Not read: dihedrals") for note in dataset.notes)
    sizes = []
    read = ExtxyzReader.read

    def watch(self, files):
        for records in read(self, files):
            sizes.append(len(records.ptr) - 1)
            yield records

    monkeypatch.setattr(ExtxyzReader, "read", watch)
    monkeypatch.setattr("geoeq.data.preparation.chunks.chunk_frames.__defaults__", (100,))
    again = load("3bpa", sample=True, root=root / "another")
    assert sizes == [4] * 5, "27 atoms a structure"
    np.testing.assert_array_equal(again.positions, dataset.positions)
    np.testing.assert_array_equal(again.targets["forces"], dataset.targets["forces"])
    assert again.notes == dataset.notes
