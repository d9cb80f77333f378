"""The messages that never make the weights of an edge, against those that do."""

from __future__ import annotations

import pytest
import torch

from geoeq import kernels
from geoeq.kernels.operators import path_forms
from geoeq.kernels.operators.path_messages import path_messages
from geoeq.kernels.operators.path_plan import PathPlan

PLAN = PathPlan(((0, 2), (1, 3)), ((0, 2), (2, 1)), hidden=3)


def arguments(plan, counts, dtype=torch.float64):
    """x, hidden, weight and couplings, and where the edges of each sender begin."""
    generator = torch.Generator().manual_seed(0)
    num_nodes, num_edges = len(counts), sum(counts)
    width = sum((2 * degree + 1) * channels for degree, channels in plan.inputs)
    shapes = [(num_nodes, width), (num_edges, plan.hidden), (plan.weight_numel,), (num_edges, plan.basis_dim)]
    factors = [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]
    return factors, torch.tensor([0, *counts]).cumsum(0)


def with_weights(plan, counts, x, hidden, weight, basis):
    """The definition, with the weights of every edge."""
    sender = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    result, weight_at, basis_at = [], 0, 0
    for degree_out, channels_out in plan.outputs:
        x_at = 0
        terms = []
        for degree, channels in plan.inputs:
            shape = (channels, plan.hidden, 2 * min(degree, degree_out) + 1, channels_out)
            size = shape[0] * shape[1] * shape[2] * shape[3]
            own = torch.einsum("eh,ihfo->eifo", hidden, weight[weight_at : weight_at + size].view(shape))
            block = x[:, x_at : x_at + (2 * degree + 1) * channels].view(len(x), 2 * degree + 1, channels)[sender]
            terms.append(torch.einsum("eifo,eli->elfo", own, block).flatten(1, 2))
            weight_at, x_at = weight_at + size, x_at + (2 * degree + 1) * channels
        total = torch.cat(terms, dim=1)  # [E, Σ l f, o]
        size = total.shape[1] * (2 * degree_out + 1)
        coupling = basis[:, basis_at : basis_at + size].view(len(sender), total.shape[1], -1)
        result.append(torch.einsum("erk,ero->eko", coupling, total).flatten(1))
        basis_at += size
    return torch.cat(result, dim=1)


@pytest.mark.parametrize("counts", [[3, 3, 3, 3], [2, 0, 5, 0, 1, 3, 0], [0, 4], [1]])
@pytest.mark.parametrize("limit", [1, 3000, 10**9])
def test_messages_and_derivatives_to_third_order(counts, limit, monkeypatch):
    """One sender at a time, a few, or all: full tables and ragged ones."""
    monkeypatch.setattr(path_forms, "_CPU_BYTES", limit)
    factors, pointers = arguments(PLAN, counts)

    def derivatives(function):
        value = function(*factors)
        found = [value]
        for _ in range(3):
            gradients = torch.autograd.grad(value.square().sum(), factors, create_graph=True)
            value = torch.cat([gradient.flatten() for gradient in gradients])
            found.append(value)
        return found

    ours = derivatives(lambda *f: path_messages(*f, pointers, PLAN))
    theirs = derivatives(lambda *f: with_weights(PLAN, counts, *f))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.detach().abs().max()))


def test_only_what_needs_a_derivative_gets_one():
    counts = [2, 3, 1]
    factors, pointers = arguments(PLAN, counts)
    for n, factor in enumerate(factors):
        alone = [f if m == n else f.detach() for m, f in enumerate(factors)]
        (found,) = torch.autograd.grad(path_messages(*alone, pointers, PLAN).square().sum(), factor)
        (expected,) = torch.autograd.grad(with_weights(PLAN, counts, *alone).square().sum(), factor)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (3,), (0, 3), (1, 2), (0, 1, 3)])
@pytest.mark.parametrize("fixed", [(), (0,), (1, 3), (2,)])
def test_second_derivatives_of_some_by_some(asked, fixed):
    """Of gradients by the factors that are asked for, where other factors need no derivative."""
    counts = [2, 0, 3, 1]
    factors, pointers = arguments(PLAN, counts)
    factors = [factor.detach() if n in fixed and n not in asked else factor for n, factor in enumerate(factors)]
    open_ = [factor for factor in factors if factor.requires_grad]

    def derivatives(function):
        value = function(*factors)
        cotangent = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value).requires_grad_()
        first = torch.autograd.grad(value, [factors[n] for n in asked], cotangent, create_graph=True)
        total = sum(part.sin().sum() for part in first)
        return torch.autograd.grad(total, [*open_, cotangent], materialize_grads=True)

    ours = derivatives(lambda *f: path_messages(*f, pointers, PLAN))
    theirs = derivatives(lambda *f: with_weights(PLAN, counts, *f))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_no_edges_and_no_nodes():
    for counts in ([0, 0, 0], []):
        factors, pointers = arguments(PLAN, counts)
        message = path_messages(*factors, pointers, PLAN)
        assert message.shape == (0, PLAN.message_dim)
        gradients = torch.autograd.grad(message.sum(), factors)
        assert all(not gradient.any() for gradient in gradients)


def test_is_an_operator_of_pytorch():
    """Fake version, derivatives and tracing agree with what is computed."""
    factors, pointers = arguments(PLAN, [2, 0, 3])
    torch.library.opcheck(torch.ops.geoeq.path_messages, (*factors, pointers, list(PLAN.code)))
    cotangent = torch.randn(5, PLAN.message_dim, dtype=torch.float64, requires_grad=True)
    wanted = [True, False, True, True]
    torch.library.opcheck(
        torch.ops.geoeq.path_messages_gradients, (*factors, cotangent, pointers, list(PLAN.code), wanted)
    )
    others = [torch.randn_like(factor).requires_grad_() for factor in factors]
    second = torch.ops.geoeq.path_messages_second
    torch.library.opcheck(second, (*factors, cotangent, *others, pointers, list(PLAN.code), [*wanted, True]))


def test_a_plan_is_told_again_from_its_numbers():
    assert PathPlan.decode(PLAN.code) == PLAN


class Messages(torch.nn.Module):
    def forward(self, x, hidden, weight, basis, pointers):
        return path_messages(x, hidden, weight, basis, pointers, PLAN)


def test_with_the_reference_a_traced_graph_has_operators_of_pytorch_alone():
    factors, pointers = arguments(PLAN, [2, 0, 5, 1])
    inputs = (*(factor.detach() for factor in factors), pointers)
    with kernels.use("llvm"):
        plain = torch.export.export(Messages(), inputs)
    with kernels.use("reference"):
        decomposed = torch.export.export(Messages(), inputs)
    assert "geoeq" in str(plain.graph)
    assert "geoeq" not in str(decomposed.graph)
    torch.testing.assert_close(decomposed.module()(*inputs), Messages()(*inputs), rtol=1e-12, atol=1e-12)
