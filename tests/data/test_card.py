"""A card is parsed into types, and errors name file and key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from geoeq.data import load_card, names, read_card
from geoeq.data.preparation.reading import make_reader
from geoeq.errors import DataError
from geoeq.fields import FIELDS


@pytest.fixture
def content() -> dict:
    return {
        "name": "mine",
        "title": "my molecules",
        "reader": "geoeq.data.formats.ase_files.ASEReader",
        "licence": "CC0",
        "citation": "none",
        "targets": {"energy": {"column": "energy", "unit": "eV", "report": "meV"}},
        "default_target": "energy",
        "splits": {"all": {"method": "consecutive", "sizes": {"train": 1, "valid": 1, "test": 1}}},
        "default_split": "all",
        "sources": [{"file": "a.xyz", "url": "https://example.org/a.xyz"}],
    }


def write(folder: Path, content: object) -> Path:
    path = folder / "mine" / "card.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", names())
def test_every_card_is_whole(name):
    card = load_card(name)
    assert card.name == name == Path(card.folder).name
    assert make_reader(card).version >= 1
    assert all(target in FIELDS for target in card.targets)
    published = [split for split in card.splits.values() if split.method != "lists"]
    assert all(split.sha256 for split in published), "the indices are known, unless they come with the data"
    assert not list(Path(card.folder).rglob("*.py"))
    assert (Path(card.folder) / "README.md").is_file()
    for source in card.sources:
        assert source.shipped or source.sha256 or source.unverified, "say so where nobody has checked"


def test_a_card_becomes_types(tmp_path, content):
    card = read_card(write(tmp_path, content))
    assert card.targets["energy"].to_report("energy") == pytest.approx(1000)
    assert card.sources[0].url == "https://example.org/a.xyz"
    assert card.sources[0].sha256 is None
    assert card.folder == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"titel": "x"}, r"mine/card.yaml: the card has no key 'titel'. Did you mean 'title'\?"),
        ({"title": 3}, r"mine/card.yaml: the key 'title' must be text, not 3"),
        ({"targets": {"energy": {"colum": "e"}}}, r"targets.energy has no key 'colum'. Did you mean 'column'\?"),
        ({"targets": {"energy": {"column": "e", "unit": "eV"}}}, r"the key 'targets.energy.report' is missing"),
        ({"targets": {"enrgy": {"column": "e", "unit": "eV", "report": "eV"}}}, r"targets: No field is called 'enrgy'"),
        (
            {"targets": {"energy": {"column": "e", "unit": "Å", "report": "eV"}}},
            r"'targets.energy' has a unit that does",
        ),
        ({"targets": []}, r"the key 'targets' must be a mapping with names as keys"),
        ({"sources": {}}, r"the key 'sources' must be a list"),
        ({"sources": [{"file": "a", "bytes": "1 MB"}]}, r"the key 'sources\[0\].bytes' must be a whole number"),
        ({"sources": [{"file": "a", "unverified": 1}]}, r"'sources\[0\].unverified' must be true or false, not 1"),
        ({"sources": [{"file": "a"}]}, r"'sources\[0\]' needs a url"),
        ({"sources": [{"file": "../a", "url": "https://x"}]}, r"'sources\[0\].file' must be a plain file name"),
        ({"default_split": "al"}, r"default_split: No split is called 'al'. Did you mean 'all'\?"),
        ({"default_target": "gap"}, r"default_target: No target is called 'gap'"),
        ({"name": "../mine"}, r"the key 'name' may contain a-z"),
        ({"splits": {"all": {"method": "consecutive", "sizes": {"train": 1}}}}, r"must have train, valid and test"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, change, message):
    with pytest.raises(DataError, match=message):
        read_card(write(tmp_path, content | change))


def test_a_missing_key_and_a_file_that_is_no_card(tmp_path, content):
    del content["licence"]
    with pytest.raises(DataError, match="the key 'licence' is missing"):
        read_card(write(tmp_path, content))
    with pytest.raises(DataError, match="the key 'file' must be a mapping"):
        read_card(write(tmp_path, ["a", "list"]))
    with pytest.raises(DataError, match="There is no card at"):
        read_card(tmp_path / "nowhere" / "card.yaml")
    path = write(tmp_path, content)
    path.write_text("a: [", encoding="utf-8")
    with pytest.raises(DataError, match="this is not YAML"):
        read_card(path)


def test_a_misspelt_data_set():
    with pytest.raises(DataError, match=r"No data set is called 'qm99'. Did you mean 'qm9'\?"):
        load_card("qm99")


@pytest.mark.parametrize(
    ("reader", "options", "message"),
    [
        ("geoeq.data.qm7.QM8Reader", {}, "has no object 'QM8Reader'. Did you mean 'QM7Reader'"),
        ("QM7Reader", {}, "'reader' must be a dotted path"),
        ("geoeq.data.card.Card", {}, "is not a class with 'version' and 'read'"),
        (
            "geoeq.data.nbody.NBodyReader",
            {"particle": 3},
            r"No option is called 'particle'. Did you mean 'particles'\?",
        ),
        ("geoeq.data.nbody.NBodyReader", {"particles": 1}, "particles must be 2 or more"),
    ],
)
def test_a_reader_that_cannot_be(tmp_path, content, reader, options, message):
    card = read_card(write(tmp_path, content | {"reader": reader, "options": options}))
    with pytest.raises(DataError, match=message):
        make_reader(card)


def test_a_split_by_lists_needs_no_sizes(tmp_path, content):
    split = {"method": "lists", "lists": {"train": ["a.xyz"], "test": ["b.xyz"]}}
    card = read_card(write(tmp_path, content | {"splits": {"all": split}, "default_split": "all"}))
    assert card.splits["all"].sizes == {}
