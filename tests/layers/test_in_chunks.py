"""Rows some at a time give what all rows at once give, with derivatives of any order."""

from __future__ import annotations

import pytest
import torch

from geoeq.layers.in_chunks import in_chunks

WEIGHT = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def rows_of(x, label, weight):
    return (x @ weight).sin() * label.unsqueeze(1)


def sum_of(x, label, weight):
    return rows_of(x, label, weight).cos().sum(0)


@pytest.mark.parametrize("count", [0, 1, 6, 7])
@pytest.mark.parametrize("function", [rows_of, sum_of])
def test_chunks_are_the_whole(function, count):
    x = torch.randn(count, 3, dtype=torch.float64).requires_grad_()
    label, weight = torch.arange(count), WEIGHT.clone().requires_grad_()
    summed = function is sum_of
    found = in_chunks(function, [x, label], [weight], size=3, summed=summed)
    expected = function(x, label, weight)
    torch.testing.assert_close(found, expected)
    cotangent = torch.randn_like(expected)
    once, again = (torch.autograd.grad(value, (x, weight), cotangent, retain_graph=True) for value in (found, expected))
    for one, other in zip(once, again, strict=True):
        torch.testing.assert_close(one, other)
    if count:
        assert torch.autograd.gradgradcheck(
            lambda x, weight: in_chunks(function, [x, label], [weight], size=3, summed=summed), (x, weight)
        )


def test_an_argument_without_part_has_derivative_zero():
    x = torch.randn(5, 3, requires_grad=True)
    idle = torch.randn(5, 3, requires_grad=True)
    in_chunks(lambda x, idle: x * 2, [x, idle], [], size=2).sum().backward()
    assert (x.grad == 2).all()
    assert (idle.grad == 0).all()


def test_what_is_made_on_the_way_has_the_size_of_a_chunk():
    seen = []

    def function(x):
        seen.append(len(x))
        return x.exp()

    x = torch.randn(10, 2, requires_grad=True)
    in_chunks(function, [x], [], size=4).sum().backward()
    assert seen == [4, 4, 2] * 2
