"""Files of the user: the choice of the reader, the notes about the file, and a card with more details."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator

from geoeq.cli.data_reports import info_lines
from geoeq.data import load, load_card
from geoeq.data.formats.quantities import DETECTED
from geoeq.data.user_files import find_reader
from geoeq.errors import DataError

SAMPLES = {name: Path(load_card(name).folder, "sample") for name in ("3bpa", "rmd17", "mlearn")}

CARD = """
name: mine
title: my molecules
reader: geoeq.data.formats.{reader}
licence: mine
citation: none
sources: [{{file: {file}, shipped: true}}]
options: {options}
targets:
  energy: {{column: energy, unit: {energy}, report: meV}}
  forces: {{column: forces, unit: {energy}/Å, report: meV/Å}}
default_target: energy
splits:
  all: {{method: permutation, seed: 1, sizes: {{train: {train}, valid: 1, test: 1}}}}
default_split: all
"""


def write_card(folder: Path, **values: object) -> Path:
    path = folder / "card.yaml"
    path.write_text(CARD.format(**values), encoding="utf-8")
    return path


@pytest.fixture
def frames() -> list[ase.Atoms]:
    frames = ase.io.read(SAMPLES["3bpa"] / "train_300K.xyz.gz", index=":12", format="extxyz")
    assert isinstance(frames, list)
    return frames


@pytest.mark.parametrize("name", ["x.extxyz", "x.XYZ", "x.xyz.gz", "x.db", "x.json", "x.traj"])
def test_one_set_in_many_formats(tmp_path, frames, name):
    path = tmp_path / name
    if name == "x.xyz.gz":
        ase.io.write(tmp_path / "x.xyz", frames, format="extxyz")
        path.write_bytes(gzip.compress((tmp_path / "x.xyz").read_bytes()))
    else:
        ase.io.write(path, frames, format="extxyz" if name == "x.XYZ" else None)
    dataset = load(path)
    assert len(dataset) == 12
    np.testing.assert_allclose(
        dataset.targets["energy"], [frame.get_potential_energy() for frame in frames], rtol=1e-14
    )
    np.testing.assert_allclose(dataset.targets["forces"][-27:], frames[-1].get_forces(), atol=1e-7)
    assert {part: len(places) for part, places in dataset.split().items()} == {"train": 10, "valid": 1, "test": 1}
    text = "\n".join(info_lines(str(path)))
    assert "structures: 12, with 27 to 27 atoms" in text
    assert "note: energy is read from the key 'energy' (detected)." in text
    assert f"target forces (eV/Å): mean {dataset.targets['forces'].mean():.6g}" in text


def test_which_reader(tmp_path):
    assert find_reader(SAMPLES["mlearn"] / "Si_20.json.gz").__name__ == "PymatgenReader"
    assert find_reader(tmp_path / "x.hdf5").__name__ == "HDF5Reader"
    assert find_reader(tmp_path / "x.h5.xz").__name__ == "HDF5Reader"
    assert find_reader(tmp_path / "OUTCAR").__name__ == "ASEReader"
    with pytest.raises(DataError, match=r"is a folder without type.raw"):
        find_reader(tmp_path)


def test_a_card_tells_keys_and_units(tmp_path, frames):
    for frame in frames:
        energy, forces = frame.get_potential_energy(), frame.get_forces()
        frame.calc = SinglePointCalculator(frame, energy=0.0, forces=0 * forces)
        frame.info["REF_energy"], frame.arrays["REF_forces"] = energy, forces
    ase.io.write(tmp_path / "x.extxyz", frames)
    with pytest.raises(DataError, match="energy may be any of 'energy', 'REF_energy'"):
        load(tmp_path / "x.extxyz")
    options = "{keys: {energy: REF_energy, forces: REF_forces}}"
    card = write_card(
        tmp_path, reader="extxyz.ExtxyzReader", file="x.extxyz", options=options, energy="kcal/mol", train=10
    )
    dataset = load(card)
    factor = 0.04336410390059322
    np.testing.assert_allclose(dataset.targets["energy"], [frame.info["REF_energy"] * factor for frame in frames])
    np.testing.assert_allclose(dataset.targets["forces"][:27], frames[0].arrays["REF_forces"] * factor, atol=1e-7)
    assert dataset.folder is not None, "it is kept in a cache, and mapped from there"
    assert len(dataset.split()["train"]) == 10
    ase.io.write(tmp_path / "x.extxyz", frames[:11])
    assert len(load(card)) == 11, "the file was changed, so the cache is made anew"


def test_a_folder_of_deepmd_with_a_card(tmp_path):
    place = tmp_path / "water" / "set.000"
    place.mkdir(parents=True)
    (tmp_path / "water" / "type.raw").write_text("0 1 1")
    (tmp_path / "water" / "nopbc").touch()
    random = np.random.default_rng(0)
    for name, width in (("coord", 9), ("force", 9), ("energy", 1)):
        np.save(place / f"{name}.npy", random.normal(size=(4, width)))
    options = "{type_map: [O, H]}"
    card = write_card(tmp_path, reader="deepmd.DeepMDReader", file="water", options=options, energy="eV", train=2)
    assert load(card).numbers.tolist() == [8, 1, 1] * 4
    before = load(card).targets["energy"].copy()
    np.save(place / "energy.npy", random.normal(size=(4, 1)))
    assert not np.array_equal(load(card).targets["energy"], before)


def test_a_file_of_a_card_that_is_not_there(tmp_path):
    card = write_card(tmp_path, reader="npz.NpzReader", file="gone.npz", options="{length: Å}", energy="eV", train=2)
    with pytest.raises(DataError, match=r"gone.npz is missing; according to its card it should be beside the card"):
        load(card)


DOCS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"


def test_the_card_of_the_documentation(tmp_path):
    (block,) = re.findall(r"^```yaml\n(.*?)^```", DOCS.read_text(), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block)
    head = "Properties=species:S:1:pos:R:3:REF_forces:R:3:forces:R:3"
    rows = "O 0 0 0 0 0 1 9 9 9\nH 0 0 2 0 0 -1 9 9 9\n"
    text = "".join(f'2\n{head} energy=0 REF_energy=-{i} stress="1 2 3 4 5 6"\n{rows}' for i in range(1000))
    (tmp_path / "my.extxyz").write_text(text)
    dataset = load(tmp_path / "mine.yaml")
    assert dataset.targets["energy"][2] == pytest.approx(-2 * units.Hartree)
    assert dataset.targets["forces"][0].tolist() == pytest.approx([0, 0, units.Hartree / units.Bohr])
    assert dataset.positions[1].tolist() == pytest.approx([0, 0, 2 * units.Bohr])
    assert {part: len(places) for part, places in dataset.split().items()} == {"train": 800, "valid": 100, "test": 100}


def test_the_documentation_lists_the_detected_names():
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", DOCS.read_text(), flags=re.MULTILINE)
    assert {name for name, _ in rows} == {*DETECTED}
    for name, words in rows:
        written = {word.casefold() for word in words.split(", ")}
        assert written <= DETECTED[name]
        assert {word for word in DETECTED[name] if not word.startswith(("ref", "dft", "qm", "true"))} == written
