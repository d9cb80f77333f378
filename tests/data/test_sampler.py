"""Batches are balanced, are the same in number for each process, and hold every structure once."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoeq.data.sampler import BatchSampler, Limit, Portion, Share
from geoeq.errors import InputError


@st.composite
def samplers(draw: st.DrawFn) -> list[BatchSampler]:
    """The samplers of all processes, of graphs or of atoms."""
    count, processes = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    sizes = np.array(draw(st.lists(st.integers(1, 20), min_size=count, max_size=count)))
    limit = draw(st.sampled_from([Limit(draw(st.integers(1, 9))), Limit(draw(st.integers(20, 60)), "atoms", sizes)]))
    accumulate, seed, epoch = draw(st.integers(1, 3)), draw(st.integers(0, 9)), draw(st.integers(0, 3))
    return [
        BatchSampler(
            np.arange(count), limit, shuffle=True, seed=seed, epoch=epoch, share=Share(rank, processes, accumulate)
        )
        for rank in range(processes)
    ]


def places(portions: list[Portion]) -> list[int]:
    return list(chain.from_iterable(portion.indices for portion in portions if portion.counted))


@given(samplers())
@settings(deadline=None)
def test_every_structure_once_and_as_many_batches_for_each(all_of: list[BatchSampler]) -> None:
    shares = [list(sampler) for sampler in all_of]
    first = all_of[0]
    assert {len(portions) for portions in shares} == {len(first)} == {first.batches(first.epoch)}
    assert sorted(chain.from_iterable(map(places, shares))) == first.indices.tolist()
    assert all(portion.indices for portions in shares for portion in portions)


@given(samplers())
@settings(deadline=None)
def test_no_batch_is_too_large(all_of: list[BatchSampler]) -> None:
    limit = all_of[0]._limit
    for portion in chain.from_iterable(all_of):
        size = len(portion.indices) if limit.sizes is None else limit.sizes[portion.indices].sum()
        assert size <= limit.largest


@given(samplers())
@settings(deadline=None)
def test_all_processes_agree_on_the_steps(all_of: list[BatchSampler]) -> None:
    share = all_of[0].share
    shares = [list(sampler) for sampler in all_of]
    for first in range(0, len(shares[0]), share.accumulate):
        parts = [portion for portions in shares for portion in portions[first : first + share.accumulate]]
        together = sorted(places(parts))
        for portion in parts:
            assert sorted(portion.step or portion.indices) == together


@given(samplers())
@settings(deadline=None)
def test_an_epoch_of_graphs_has_the_steps_of_one_process_with_larger_batches(all_of: list[BatchSampler]) -> None:
    first = all_of[0]
    if first._limit.sizes is not None:
        return
    whole = first._limit.largest * len(all_of) * first.share.accumulate
    alone = BatchSampler(first.indices, Limit(whole), shuffle=True, seed=first.seed, epoch=first.epoch)
    steps = list(dict.fromkeys(tuple(portion.step or portion.indices) for portion in first))
    assert steps == [tuple(portion.indices) for portion in alone]
    assert first.steps(first.epoch) == len(alone)


@given(samplers(), st.integers(0, 70))
@settings(deadline=None)
def test_going_on_in_the_middle(all_of: list[BatchSampler], done: int) -> None:
    for sampler in all_of:
        epoch, expected = sampler.epoch, list(sampler)
        sampler.resume(epoch, done)
        assert list(sampler) == expected[done:]
        assert len(sampler) == max(len(expected) - done, 0)
        fresh = BatchSampler(sampler.indices, sampler._limit, shuffle=True, seed=sampler.seed, share=sampler.share)
        for other in (sampler, fresh):
            other.set_epoch(epoch + 1)
        assert list(sampler) == list(fresh)


def test_batches_are_filled_by_atoms() -> None:
    sizes = np.array([5, 5, 5, 9, 1, 10, 2])
    sampler = BatchSampler(np.arange(7), Limit(10, "atoms", sizes))
    assert [portion.indices for portion in sampler] == [[0, 1], [2], [3, 4], [5], [6]]
    with pytest.raises(InputError, match=r"Structure 5 has 10 atoms, but a batch holds at most 9\. Set batch_atoms"):
        BatchSampler(np.arange(7), Limit(9, "atoms", sizes))


def test_the_last_batches_are_split_between_processes() -> None:
    alone = [list(BatchSampler(np.arange(11), Limit(4), share=Share(rank, 2))) for rank in range(2)]
    assert [portion.indices for portion in alone[0]] == [[0, 1, 2, 3], [8]]
    assert [portion.indices for portion in alone[1]] == [[4, 5, 6, 7], [9, 10]]
    few = [list(BatchSampler(np.arange(1), Limit(4), share=Share(rank, 3))) for rank in range(3)]
    assert [portions[0].counted for portions in few] == [True, False, False]
    whole = BatchSampler(np.arange(11), Limit(4), drop_last=True, share=Share(0, 2))
    assert [portion.indices for portion in whole] == [[0, 1, 2, 3]]
