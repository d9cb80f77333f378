"""The order of a loader depends on (seed, epoch) alone, and can begin in the middle."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch

from geoeq.data import load
from geoeq.data.dataset import Dataset
from geoeq.errors import DataError, InputError


@pytest.fixture
def qm7() -> Dataset:
    return load("qm7", sample=True)


def order(loader) -> list[int]:
    return torch.cat([batch.place for batch in loader]).tolist()


def test_batches(qm7):
    places = qm7.split()["train"]
    loader = qm7.loader(places, 32)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [batch.num_graphs for batch in batches] == [32, 32, len(places) - 64]
    assert all(isinstance(batch, Batch) for batch in batches)
    assert order(loader) == places.tolist()
    assert [batch.num_graphs for batch in qm7.loader(places, 32, drop_last=True)] == [32, 32]


def test_the_order_is_that_of_seed_and_epoch(qm7):
    places = range(50)
    loader = qm7.loader(places, 8, shuffle=True, seed=3)
    first = order(loader)
    assert first == order(loader) == order(qm7.loader(places, 8, shuffle=True, seed=3))
    assert first != list(places)
    assert sorted(first) == list(places)
    loader.sampler.set_epoch(1)
    second = order(loader)
    assert second != first
    assert second == order(qm7.loader(places, 8, shuffle=True, seed=3, epoch=1))
    assert order(qm7.loader(places, 8, shuffle=True, seed=4)) != first
    torch.manual_seed(99)
    loader.sampler.set_epoch(0)
    assert order(loader) == first


def test_resuming_in_the_middle_of_an_epoch(qm7):
    places = range(50)
    whole = qm7.loader(places, 8, shuffle=True, seed=1, epoch=4)
    expected = order(whole)
    resumed = qm7.loader(places, 8, shuffle=True, seed=1)
    resumed.sampler.resume(4, 3 * 8)
    assert len(resumed) == 4
    assert order(resumed) == expected[24:]
    resumed.sampler.set_epoch(5)
    whole.sampler.set_epoch(5)
    assert len(resumed) == 7
    assert order(resumed) == order(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(qm7, workers):
    options = {"shuffle": True, "seed": 2, "cutoff": 3.0}
    alone = list(qm7.loader(range(40), 8, **options))
    shared = list(qm7.loader(range(40), 8, workers=workers, **options))
    for one, two in zip(alone, shared, strict=True):
        assert torch.equal(one.place, two.place)
        assert torch.equal(one.pos, two.pos)
        assert torch.equal(one.edge_index, two.edge_index)


def test_edges_and_targets(qm7):
    (batch,) = qm7.loader([0, 1], 2, cutoff=1.5, targets=[], dtype=torch.float64)
    assert "atomization_energy" not in batch
    assert batch.pos.dtype == torch.float64
    assert torch.equal(batch.edge_index, qm7.batch([0, 1], cutoff=1.5).edge_index)
    (batch,) = qm7.loader([0, 1], 2)
    assert "edge_index" not in batch


def test_what_cannot_be(qm7):
    with pytest.raises(InputError, match="The batch size is 0"):
        qm7.loader([0], 0)
    with pytest.raises(InputError, match="there is no structure 100"):
        qm7.loader([100], 1)
    with pytest.raises(DataError, match="No target is called 'energy'"):
        qm7.loader([0], 1, targets=["energy"])
