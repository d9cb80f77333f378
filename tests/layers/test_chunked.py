"""Evaluation in chunks equals evaluation at once, with derivatives of any order."""

from __future__ import annotations

import pytest
import torch

from geoeq.layers.chunked import chunked

WEIGHT = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def rows_of(x, label, weight):
    return (x @ weight).sin() * label.unsqueeze(1)


@pytest.mark.parametrize("count", [0, 1, 6, 7])
@pytest.mark.parametrize("summed", [False, True])
def test_chunks_equal_the_whole(summed, count):
    x = torch.randn(count, 3, dtype=torch.float64).requires_grad_()
    label, weight = torch.arange(count), WEIGHT.clone().requires_grad_()
    target = (label % 4, 5) if summed else None  # rows are added across chunks, and one has none
    found = chunked(rows_of, [x, label], [weight], size=3, target=target)
    expected = rows_of(x, label, weight)
    if summed:
        expected = torch.stack([expected[label % 4 == row].sum(0) for row in range(5)])
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(expected)
    once, again = (torch.autograd.grad(value, (x, weight), cotangent, retain_graph=True) for value in (found, expected))
    for one, other in zip(once, again, strict=True):
        torch.testing.assert_close(one, other)
    if count:
        assert torch.autograd.gradgradcheck(
            lambda x, weight: chunked(rows_of, [x, label], [weight], size=3, target=target), (x, weight)
        )


@pytest.mark.parametrize("summed", [False, True])
def test_derivatives_of_third_order(summed):
    x = torch.randn(4, 3, dtype=torch.float64).requires_grad_()
    label, weight = torch.arange(4), WEIGHT.clone().requires_grad_()
    target = (label % 4, 5) if summed else None

    def first(x, weight):
        value = chunked(rows_of, [x, label], [weight], size=3, target=target).square().sum()
        return torch.autograd.grad(value, x, create_graph=True)

    assert torch.autograd.gradgradcheck(first, (x, weight))


@pytest.mark.parametrize("summed", [False, True])
def test_rows_of_tables_are_taken_in_chunks(summed):
    label = torch.arange(7)
    first, second = label % 3, (2 * label) % 5  # some rows are taken in several chunks, one by nobody
    target = (label % 4, 5) if summed else None
    x = torch.randn(7, 3, dtype=torch.float64).requires_grad_()
    one, other = (torch.randn(size, 3, dtype=torch.float64).requires_grad_() for size in (3, 6))
    weight = WEIGHT.clone().requires_grad_()

    def function(x, here, there, weight):
        return (x * here @ weight).sin() * (there @ weight).cos()

    def found(x, one, other, weight):
        tables = [(one, first), (other, second)]
        return chunked(function, [x], [weight], size=3, target=target, tables=tables)

    def force(*inputs):
        return torch.autograd.grad(found(*inputs).square().sum(), inputs, create_graph=True)

    inputs = x, one, other, weight
    expected = function(x, one[first], other[second], weight)
    if summed:
        expected = torch.stack([expected[label % 4 == row].sum(0) for row in range(5)])
    torch.testing.assert_close(found(*inputs), expected)
    assert torch.autograd.gradcheck(found, inputs, fast_mode=True)
    assert torch.autograd.gradcheck(force, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(force, inputs, fast_mode=True)


def test_an_argument_without_part_has_derivative_zero():
    x = torch.randn(5, 3, requires_grad=True)
    idle = torch.randn(5, 3, requires_grad=True)
    chunked(lambda x, idle: x * 2, [x, idle], [], size=2).sum().backward()
    assert (x.grad == 2).all()
    assert (idle.grad == 0).all()


def test_what_is_made_on_the_way_has_the_size_of_a_chunk():
    seen = []

    def function(x):
        seen.append(len(x))
        return x.exp()

    x = torch.randn(10, 2, requires_grad=True)
    chunked(function, [x], [], size=4).sum().backward()
    assert seen == [4, 4, 2] * 2
    seen.clear()
    (force,) = torch.autograd.grad(chunked(function, [x], [], size=4).sum(), x, create_graph=True)
    force.square().sum().backward()
    assert max(seen) == 4
