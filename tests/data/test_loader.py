"""The order of a loader depends on (seed, epoch) alone, and can begin in the middle."""

from __future__ import annotations

import signal
import threading

import pytest
import torch
from torch_geometric.data import Batch

from geoeq.data import load
from geoeq.data.dataset import Dataset
from geoeq.data.loader import BatchView, make_loader
from geoeq.data.sampler import BatchSampler, Limit, Portion, Share
from geoeq.errors import DataError, InputError


@pytest.fixture
def qm7() -> Dataset:
    return load("qm7", sample=True)


def order(loader) -> list[int]:
    return torch.cat([batch.structure_id for batch in loader]).tolist()


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
    resumed.sampler.resume(4, 3)
    assert len(resumed) == 4
    assert order(resumed) == expected[24:]
    resumed.sampler.set_epoch(5)
    whole.sampler.set_epoch(5)
    assert len(resumed) == 7
    assert order(resumed) == order(whole)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # where the process has one core
@pytest.mark.parametrize("how", [{"workers": 1}, {"workers": 2}, {"ahead": True}, {"ahead": True, "workers": 1}])
def test_workers_and_reading_ahead_change_nothing(qm7, how):
    options = {"shuffle": True, "seed": 2, "cutoff": 3.0}
    alone, shared = qm7.loader(range(40), 8, **options), qm7.loader(range(40), 8, **options, **how)
    for epoch, batches in ((0, 0), (3, 2)):
        for loader in (alone, shared):
            loader.sampler.resume(epoch, batches)
        assert len(alone) == len(shared) == 5 - batches
        for one, two in zip(alone, shared, strict=True):
            assert one.keys() == two.keys()
            assert all(torch.equal(one[name], two[name]) for name in one.keys())  # noqa: SIM118


class Watched(BatchView):
    """Tells when it is asked for a batch, and does what it is told to then."""

    def __init__(self, dataset):
        super().__init__(dataset)
        self.asked, self.act = threading.Semaphore(0), {}

    def __getitem__(self, portion: Portion) -> Batch:
        self.asked.release()
        self.act.get(portion.indices[0], lambda: None)()
        return super().__getitem__(portion)


@pytest.fixture
def watched(qm7):
    view = Watched(qm7)
    return view, make_loader(view, BatchSampler(range(6), Limit(1)), ahead=True)


def reading() -> bool:
    return any("geoeq-batches" in thread.name for thread in threading.enumerate())


def test_the_next_batch_and_no_other_is_made_while_one_is_used(watched):
    view, loader = watched
    for number, batch in enumerate(loader):
        assert batch.structure_id.tolist() == [number]
        assert view.asked.acquire(timeout=60)
        if number == 0:
            assert view.asked.acquire(timeout=60), "nothing was read ahead"
            assert reading()
            assert not view.asked.acquire(timeout=0.05), "two batches were read ahead"
            view.asked.release()
    assert not reading()


def test_an_error_in_the_thread_is_raised_where_its_batch_is_asked_for(watched):
    view, loader = watched

    def fail():
        raise DataError("this batch cannot be read")

    view.act[2] = fail
    seen = []
    with pytest.raises(DataError, match="this batch cannot be read") as caught:
        seen.extend(batch.structure_id.item() for batch in loader)
    assert caught.traceback[-1].name == "fail"
    assert seen == [0, 1]
    assert not reading()


def test_leaving_the_loop_ends_the_thread(watched):
    view, loader = watched
    state = torch.get_rng_state()
    batches = iter(loader)
    assert not reading()
    assert next(batches).structure_id == 0
    assert reading()
    del batches
    assert not reading()
    ahead, plain = torch.get_rng_state(), make_loader(view, BatchSampler(range(6), Limit(1)))
    torch.set_rng_state(state)
    next(iter(plain))
    assert torch.equal(torch.get_rng_state(), ahead)
    assert [batch.structure_id.item() for batch in loader] == list(range(6))

    def interrupt():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    view.act[3] = interrupt
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell goes on
    try:
        with pytest.raises(KeyboardInterrupt):
            [view.asked.acquire(timeout=60) for _ in loader]
    finally:
        signal.signal(signal.SIGINT, before)
    assert not reading()


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
    with pytest.raises(InputError, match="exactly one of batch_size, batch_atoms and batch_edges"):
        qm7.loader([0])
    with pytest.raises(InputError, match="exactly one of batch_size, batch_atoms and batch_edges"):
        qm7.loader([0], 1, batch_atoms=10)
    with pytest.raises(InputError, match=r"Structure \d+ has \d+ atoms, but a batch holds at most 3"):
        qm7.loader(range(100), batch_atoms=3)
    with pytest.raises(DataError, match="a cutoff is needed to compute them"):
        qm7.loader(range(100), batch_edges=3)
    with pytest.raises(InputError, match="there is no structure 100"):
        qm7.loader([100], 1)
    with pytest.raises(DataError, match="No target is called 'energy'"):
        qm7.loader([0], 1, targets=["energy"])


def test_batches_of_so_many_atoms_or_edges(qm7):
    options = {"shuffle": True, "seed": 5, "cutoff": 3.0}
    for loader, size in (
        (qm7.loader(range(100), batch_atoms=120, **options), lambda batch: batch.num_nodes),
        (qm7.loader(range(100), batch_edges=900, **options), lambda batch: batch.num_edges),
    ):
        largest = loader.sampler._limit.largest
        sizes = [size(batch) for batch in loader]
        assert len(loader) == len(sizes) > 3
        assert max(sizes) <= largest
        assert min(sizes[:-1]) > 0.7 * largest
        assert sorted(order(loader)) == list(range(100))
    for cutoff in (3.0, 2.0):  # kept edges, and edges that are only counted
        if cutoff == 3.0:
            assert cutoff in qm7._edges
        expected = [qm7.batch([place], cutoff=cutoff).num_edges for place in range(100)]
        for _ in range(2):  # the second time they are read
            assert qm7.edge_counts(cutoff).tolist() == expected


def test_shares_of_a_step_say_what_the_whole_step_holds(qm7):
    loaders = [
        qm7.loader(range(41), 4, shuffle=True, share=Share(rank, 2, accumulate=2), targets=[]) for rank in range(2)
    ]
    shares = [list(loader) for loader in loaders]
    assert [len(batches) for batches in shares] == [6, 6]
    whole = list(qm7.loader(range(41), 16, shuffle=True, targets=[]))
    for number, step in enumerate(whole):
        parts = [batches[2 * number + micro] for micro in range(2) for batches in shares]
        assert sorted(torch.cat([part.structure_id for part in parts if part.whole_step[0, 3]])) == sorted(
            step.structure_id
        )
        for part in parts:
            assert part.whole_step[0, :3].tolist() == [step.num_graphs, step.num_nodes, step.num_nodes]
