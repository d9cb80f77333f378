"""Fingerprints: the same for what is the same within 1e-4 Å, and others for what is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from geoeq.data import Dataset, load
from geoeq.data_doctor.duplicates import same_structures
from geoeq.data_doctor.fingerprints import sorted_atom_prints
from geoeq.data_doctor.statistics import choose_structures, compute_statistics


def prints_of(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    places = np.arange(len(dataset))
    statistics = compute_statistics(dataset, places, {}, ())
    return statistics.prints, np.stack(sorted_atom_prints(dataset, places, statistics.cutoff)[:2])


@pytest.mark.parametrize("name", ["rmd17", "3bpa"])
def test_poses_and_orders_are_the_same(copy_of, pose: Callable[..., None], name: str) -> None:
    dataset, arrays = copy_of(name)
    pose(arrays, 0, 1)
    whole, atoms = prints_of(Dataset(dataset.card, arrays))
    assert np.abs(whole[0] - whole[1]).max() < 1e-12
    assert np.abs(atoms[0] - atoms[1]).max() < 1e-12
    assert np.abs(whole[0] - whole[2]).max() > 1e-3


@pytest.mark.parametrize(("size", "same"), [(1e-4, True), (2e-2, False)])
def test_small_moves_are_the_same_and_large_ones_are_not(copy_of, pose, size: float, same: bool) -> None:
    """Whatever the structure: there are no edges of bins."""
    dataset, arrays = copy_of("rmd17")
    random = np.random.default_rng(0)
    sources, targets = range(40), range(50, 90)
    for source, target in zip(sources, targets):
        pose(arrays, source, target)
    steps = random.normal(size=arrays["positions"].shape)
    steps *= size / np.linalg.norm(steps, axis=1, keepdims=True)
    moved = np.repeat(np.arange(len(dataset)) >= 50, np.diff(arrays["ptr"]))
    arrays["positions"] += steps * moved[:, None]
    data = Dataset(dataset.card, arrays)
    statistics = compute_statistics(data, np.arange(len(data)), {}, ())
    pairs = same_structures(statistics.prints, statistics.counts, statistics.columns["size"])
    found = {tuple(pair) for pair in pairs.tolist()}
    expected = set(zip(sources, targets))
    assert found == expected if same else not found & expected


def test_a_periodic_structure_shifted_through_its_boundary(copy_of) -> None:
    dataset, arrays = copy_of("lips")
    atoms = slice(arrays["ptr"][1], arrays["ptr"][2])
    first = arrays["positions"][: arrays["ptr"][1]]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    shifts = np.random.default_rng(2).integers(-2, 3, size=first.shape)
    arrays["positions"][atoms] = (first + shifts @ arrays["cell"][0] + 1.7) @ turn
    arrays["cell"][1] = arrays["cell"][0] @ turn
    whole, atoms_prints = prints_of(Dataset(dataset.card, arrays))
    assert np.abs(whole[0] - whole[1]).max() < 1e-10
    assert np.abs(atoms_prints[0] - atoms_prints[1]).max() < 1e-10


def test_elements_matter(copy_of) -> None:
    dataset, arrays = copy_of("rmd17")
    arrays["positions"][9:18] = arrays["positions"][:9]
    arrays["numbers"][9:18] = arrays["numbers"][:9][::-1]
    whole, _ = prints_of(Dataset(dataset.card, arrays))
    assert np.abs(whole[0] - whole[1]).max() > 1e-3


def test_the_quick_form_is_bounded() -> None:
    dataset = load("qm7")
    places = choose_structures(dataset, full=False)
    assert len(places) <= 1500
    assert np.diff(dataset.ptr)[places].sum() < 12_000
    assert (np.diff(places) == 1).any()  # runs, for data that are in the order of a simulation
    assert np.array_equal(choose_structures(dataset, full=True), np.arange(len(dataset)))
