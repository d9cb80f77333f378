"""Every backend gives the sums of plain loops, with derivatives; segments may be empty, unsorted or none."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from geoeq import kernels
from geoeq.errors import BackendError, TensorError

AVAILABLE = [status.name for status in kernels.report() if status.available]
INDEX = {"sorted": [0, 0, 1, 3, 3, 3], "unsorted": [3, 0, 1, 3, 0, 3]}
NUM_SEGMENTS = 5


@pytest.fixture(params=[status.name for status in kernels.report()])
def backend(request):
    if request.param not in AVAILABLE:
        pytest.skip(next(status.reason for status in kernels.report() if status.name == request.param))
    with kernels.use(request.param):
        yield request.param


def segments_of(order):
    """The index, or a graph where it is sorted."""
    index = torch.tensor(INDEX[order])
    if order == "unsorted":
        return index, NUM_SEGMENTS
    pointers = torch.searchsorted(index, torch.arange(NUM_SEGMENTS + 1))
    return SimpleNamespace(receiver=index, row_pointers=pointers, num_nodes=NUM_SEGMENTS), None


def loop(values, index, reduce, empty):
    rows = [values[index == segment] for segment in range(NUM_SEGMENTS)]
    return torch.stack([reduce(row) if len(row) else empty for row in rows])


@pytest.mark.parametrize("order", INDEX)
@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reductions_are_those_of_a_loop(backend, order, shape, dtype):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    index = torch.tensor(INDEX[order])
    empty = values.new_zeros(shape[1:])
    segments = segments_of(order)
    for function, reduce in [
        (kernels.segment_sum, lambda row: row.sum(0)),
        (kernels.segment_mean, lambda row: row.mean(0)),
        (kernels.segment_max, lambda row: row.amax(0)),
    ]:
        torch.testing.assert_close(function(values, *segments), loop(values, index, reduce, empty))
    expected = torch.empty_like(values)
    for segment in range(NUM_SEGMENTS):
        expected[index == segment] = values[index == segment].softmax(0)
    torch.testing.assert_close(kernels.segment_softmax(values, *segments), expected)


@pytest.mark.parametrize("order", INDEX)
def test_derivatives(backend, order):
    values = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    segments = segments_of(order)
    for function in (kernels.segment_sum, kernels.segment_mean, kernels.segment_softmax):
        assert gradcheck(lambda v, f=function: f(v, *segments).square(), (values,))
        assert gradgradcheck(lambda v, f=function: f(v, *segments).square(), (values,))
    assert gradcheck(lambda v: kernels.segment_max(v, *segments), (values,))


def test_no_rows_at_all(backend):
    values, index = torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    for function in (kernels.segment_sum, kernels.segment_mean, kernels.segment_max):
        assert torch.equal(function(values, index, 4), torch.zeros(4, 3))
    assert kernels.segment_softmax(values, index, 4).shape == (0, 3)


def test_softmax_neither_overflows_nor_underflows(backend):
    values = torch.tensor([1e4, 1e4 - 1, -1e4, -1e4 - 1])
    weights = kernels.segment_softmax(values, torch.tensor([0, 0, 1, 1]), 2)
    assert torch.allclose(weights, torch.tensor([0.7310586, 0.2689414] * 2))


def test_gather_is_indexing_with_a_derivative():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([0, 3, 3, 1])
    assert torch.equal(kernels.gather(x, index), x[index])
    assert gradgradcheck(lambda v: kernels.gather(v, index).square(), (x,))


def test_the_index_must_fit_the_values():
    with pytest.raises(TensorError, match=r"\[3, 2\].*\[4\]"):
        kernels.segment_sum(torch.zeros(3, 2), torch.zeros(4, dtype=torch.int64), 2)
    with pytest.raises(TensorError, match="num_segments"):
        kernels.segment_sum(torch.zeros(3), torch.zeros(3, dtype=torch.int64))


def test_a_backend_is_forced_within_the_block_only(monkeypatch):
    from geoeq.kernels import backend

    calls = []

    class Spy(kernels.Backend):
        name = "spy"

        def segment_sum(self, values, segments):
            calls.append(1)
            return super().segment_sum(values, segments)

    monkeypatch.setattr(backend, "_BACKENDS", dict(backend._BACKENDS))
    backend.register(Spy())
    kernels.segment_sum(torch.ones(2), torch.zeros(2, dtype=torch.int64), 1)
    assert not calls
    with kernels.use("spy"):
        kernels.segment_sum(torch.ones(2), torch.zeros(2, dtype=torch.int64), 1)
    assert len(calls) == 1
    kernels.segment_sum(torch.ones(2), torch.zeros(2, dtype=torch.int64), 1)
    assert len(calls) == 1


def test_a_backend_that_is_unknown_or_not_available_says_why(monkeypatch):
    from geoeq.kernels.backends import torch_scatter

    with pytest.raises(BackendError, match="Did you mean 'reference'"), kernels.use("referense"):
        pass
    monkeypatch.setattr(torch_scatter, "_module", lambda: torch_scatter.MissingExtraError("not installed"))
    refused = pytest.raises(BackendError, match="'torch_scatter' cannot be used here: not installed")
    with refused, kernels.use("torch_scatter"):
        pass


def test_the_report_names_every_backend():
    names = [status.name for status in kernels.report()]
    assert {"reference", "torch_scatter"} <= set(names)
    assert all(status.reason for status in kernels.report() if not status.available)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_reference_may_be_compiled_to_machine_code():
    """Inductor adds all rows to one place where index_add is given a tensor that is expanded."""
    values, index = torch.randn(6, 3), torch.tensor(INDEX["unsorted"])

    def function(values):
        return kernels.segment_sum(values.sin(), index, NUM_SEGMENTS)

    with kernels.use("reference"):
        torch.testing.assert_close(torch.compile(function)(values), function(values))
