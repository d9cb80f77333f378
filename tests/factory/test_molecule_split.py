"""No molecule is in both training and test."""

from __future__ import annotations

import numpy as np

from geoeq.factory.molecule_split import divide


def test_molecules_stay_whole() -> None:
    groups = [f"molecule {i % 20}" for i in range(60)]
    counts = list(range(1, 61))
    division = divide(groups, counts, seed=3)
    places = {part: {g for g, of in zip(groups, division.parts) if of == part} for part in ("train", "valid", "test")}
    assert {part: len(found) for part, found in places.items()} == {"train": 16, "valid": 2, "test": 2}
    assert len(set.union(*places.values())) == 20
    assert sorted(division.order) == list(range(60))
    assert [division.parts[place] for place in division.order] == sorted(division.parts, key="train valid test".index)
    assert dict(division.sizes) == {
        part: sum(c for c, of in zip(counts, division.parts) if of == part) for part in places
    }
    assert divide(groups, counts, seed=3) == division
    assert divide(groups, counts, seed=4).parts != division.parts


def test_of_few_molecules_the_starts_are_divided_and_of_few_starts_the_structures() -> None:
    starts = divide(["a", "b"] * 10, [5] * 20, seed=0)
    assert starts.name == "start"
    assert dict(starts.sizes) == {"train": 80, "valid": 10, "test": 10}
    assert "errors say nothing about other molecules" in starts.source
    frames = divide(["a"], [100], seed=0)
    assert (frames.name, frames.method) == ("structure", "permutation")
    assert dict(frames.sizes) == {"train": 80, "valid": 10, "test": 10}
    assert "neighbouring frames" in frames.source


def test_every_part_has_a_molecule() -> None:
    assert sorted(divide(["a", "b", "c"], [1, 1, 1], seed=0).parts) == ["test", "train", "valid"]
    assert np.sum(list(divide(["a", "b", "c"], [4, 5, 6], seed=1).sizes.values())) == 15
