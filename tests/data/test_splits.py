"""A split is the published one, to the index, and cannot change unnoticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from geoeq.data import Split, load, load_card, names
from geoeq.data.splits import METHODS, PARTS, check_indices, indices_sha256, make_split, scale_sizes
from geoeq.errors import DataError

QM9_MOLECULES = 130831


def split_of_qm9(name: str) -> dict[str, np.ndarray]:
    return make_split(load_card("qm9").splits[name], QM9_MOLECULES, "qm9")


def test_cormorant():
    # Its program: seed 0, a permutation of the molecules, 100 000, then valid, then a test set of 10%.
    np.random.seed(0)
    permutation = np.random.permutation(QM9_MOLECULES)
    test = int(0.1 * QM9_MOLECULES)
    valid = QM9_MOLECULES - 100000 - test
    train, valid_part, test_part, rest = np.split(permutation, [100000, 100000 + valid, 100000 + valid + test])
    assert len(rest) == 0
    found = split_of_qm9("egnn")
    for part, expected in zip(PARTS, (train, valid_part, test_part)):
        np.testing.assert_array_equal(found[part], expected)


def test_dimenet():
    permutation = np.random.RandomState(seed=42).permutation(np.arange(QM9_MOLECULES))
    found = split_of_qm9("dimenet")
    np.testing.assert_array_equal(found["train"], permutation[:110000])
    np.testing.assert_array_equal(found["valid"], permutation[110000:120000])
    np.testing.assert_array_equal(found["test"], permutation[120000:])


RECORDS = {"qm7": 7101, "qm9": QM9_MOLECULES, "nbody": 7000}
PUBLISHED = [
    (name, key)
    for base in names()
    for name in [base, *(f"{base}/{variant}" for variant in load_card(base).variants)]
    for key, split in load_card(name).splits.items()
    if not split.lists and not split.parts  # lists come with the data; parts have a test of their own
]


def is_large(name: str, key: str) -> bool:
    return sum(load_card(name).splits[key].sizes.values()) > 1_000_000


@pytest.mark.parametrize(
    ("name", "key"),
    [pytest.param(*pair, marks=[pytest.mark.slow] if is_large(*pair) else []) for pair in PUBLISHED],
)
def test_the_checksum_of_a_published_split(name, key):
    card = load_card(name)
    split = card.splits[key]
    count = RECORDS.get(name, sum(split.sizes.values()))
    indices = make_split(split, count, key)
    check_indices(indices, split.sha256, f"{name}: {key}")
    everything = np.concatenate([indices[part] for part in PARTS])
    np.testing.assert_array_equal(np.sort(everything), np.arange(count))


def part_splits(least: int, most: int) -> list[tuple[str, str]]:
    """The splits of published parts, by data set and name, that have so many records to train with."""
    return [
        (name, key)
        for name in names()
        for key, split in load_card(name).splits.items()
        if split.method == "parts" and least <= split.sizes["train"] < most
    ]


SOME, MANY = 3_000_000, 10**12


@pytest.mark.parametrize(
    ("name", "key"),
    [*part_splits(0, SOME), *(pytest.param(*split, marks=pytest.mark.slow) for split in part_splits(SOME, MANY))],
)
def test_the_checksum_of_published_parts(name, key):
    card = load_card(name)
    known = {part: split.sizes[role] for split in card.splits.values() for role, part in (split.parts or {}).items()}
    parts = {part: known[part] for part in card.options["parts"]}
    split = card.splits[key]
    indices = make_split(split, sum(parts.values()), key, parts)
    check_indices(indices, split.sha256, f"{name}: {key}")
    starts = dict(zip(parts, np.cumsum([0, *parts.values()])))
    for role, part in split.parts.items():
        assert (indices[role][0], len(indices[role])) == (starts[part], parts[part])


@pytest.mark.parametrize("method", METHODS)
def test_parts_share_nothing_and_the_seed_matters(method):
    split = Split(method=method, seed=1, sizes={"train": 50, "valid": 20, "test": 10})
    indices = make_split(split, 100, "x")
    assert [len(indices[part]) for part in PARTS] == [50, 20, 10]
    assert len(np.unique(np.concatenate(list(indices.values())))) == 80
    assert indices_sha256(indices) == indices_sha256(make_split(split, 100, "x"))
    other = make_split(replace(split, seed=2), 100, "x")
    assert (indices_sha256(indices) == indices_sha256(other)) == (method == "consecutive")


def test_the_checksum_knows_where_a_part_ends():
    order = np.arange(10)
    one = {"train": order[:5], "valid": order[5:8], "test": order[8:]}
    two = {"train": order[:6], "valid": order[6:8], "test": order[8:]}
    assert indices_sha256(one) != indices_sha256(two)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (Split("permutaton", {"train": 1, "valid": 1, "test": 1}, seed=0), "Did you mean 'permutation'"),
        (Split("permutation", {"train": 1, "valid": 1, "test": 1}), "needs a seed"),
        (Split("consecutive", {"train": 9, "valid": 1, "test": 1}), "do not fit into the 10 records"),
        (Split("consecutive", {"train": -1, "valid": 1, "test": 1}), "do not fit into the 10 records"),
    ],
)
def test_splits_that_cannot_be(split, message):
    with pytest.raises(DataError, match=message):
        make_split(split, 10, "x")


@pytest.mark.parametrize("count", [3, 4, 10, 100, 7101])
def test_scaled_sizes(count):
    sizes = scale_sizes({"train": 100000, "valid": 17748, "test": 13083}, count)
    assert sum(sizes.values()) == count
    assert min(sizes.values()) >= 1
    assert sizes["train"] >= sizes["valid"] >= sizes["test"]


def test_a_sample_of_a_split_that_is_nearly_all_test_has_something_to_train_with():
    assert scale_sizes({"train": 1000, "valid": 100, "test": 23901}, 10) == {"train": 1, "valid": 1, "test": 8}


def test_a_sample_is_split_like_the_whole():
    dataset = load("qm9", sample=True)
    indices = dataset.split("dimenet")
    order = np.random.RandomState(42).permutation(100)
    np.testing.assert_array_equal(np.concatenate([indices[part] for part in PARTS]), order)
    assert {part: len(indices[part]) for part in PARTS} == {"train": 84, "valid": 8, "test": 8}


def test_a_misspelt_split():
    with pytest.raises(DataError, match=r"qm9: No split is called 'dimnet'. Did you mean 'dimenet'\?"):
        load("qm9", sample=True).split("dimnet")


def test_a_split_is_stored_and_may_not_change():
    dataset = load("qm7", sample=True)
    first = dataset.split()
    again = load("qm7", sample=True).split()
    assert indices_sha256(first) == indices_sha256(again)
    changed = replace(dataset.card.splits["standard"], seed=1)
    dataset.card = replace(dataset.card, splits={"standard": changed})
    with pytest.raises(DataError, match=r"'standard': it was stored in .* but the card now says .*'seed': 1"):
        dataset.split()


def test_a_split_that_is_not_that_of_the_checksum():
    dataset = load("qm7")
    changed = replace(dataset.card.splits["standard"], seed=1)
    dataset.card = replace(dataset.card, splits={"standard": changed})
    with pytest.raises(DataError, match="this is not the split of the card"):
        dataset.split()


def test_stored_indices_that_were_altered(root):
    load("qm7").split()
    (path,) = root.rglob("qm7/*-split-standard/train.npy")
    np.save(path, np.arange(5700)[::-1])
    with pytest.raises(DataError, match=r"train.npy was altered"):
        load("qm7").split()
