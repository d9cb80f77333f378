"""Attention over tensor products, its linear maps after the sum, against the sum of mapped products."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from e3nn import o3
from hypothesis import given, settings
from hypothesis import strategies as st

from geoeq import kernels
from geoeq.errors import TensorError
from geoeq.kernels.llvm import launch
from geoeq.kernels.llvm.backend import LLVM
from geoeq.layers.products.tensor_paths import depthwise_paths
from geoeq.pointers import row_pointers

pytestmark = pytest.mark.skipif(LLVM().available() is not None, reason=str(LLVM().available()))


def paths_of(irreps_in, harmonics, out, heads):
    keep = [ir for _, ir in o3.Irreps(out)]
    return depthwise_paths(o3.Irreps(irreps_in), o3.Irreps(harmonics), keep)[0].with_heads(heads)


SMALL = ("3x0e + 2x1o", "0e + 1o + 2e", "0e + 1o + 2e", 2)


def graph_of(num_nodes, num_edges):
    """Edges at random, the last node without any."""
    receiver = torch.randint(max(num_nodes - 1, 1), (num_edges,)).sort()[0]
    return SimpleNamespace(receiver=receiver, row_pointers=row_pointers(receiver, num_nodes), num_nodes=num_nodes)


def arguments_of(paths, num_edges, width=2):
    """Features, harmonics (more than are read), weights and maps."""
    shapes = [(num_edges, paths.x_dim), (num_edges, paths.harmonics_dim + 2), (num_edges, paths.heads)]
    shapes += [(channels, width * paths.heads) for _, channels in paths.out_blocks]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def derivatives(name, paths, graph, given):
    """The blocks, the gradients of a function of them, and the gradients of a function of those."""
    with kernels.use(name):
        blocks = kernels.attended_product(*given[:3], graph, paths, given[3:])
    cotangents = [torch.linspace(-1, 1, b.numel(), dtype=b.dtype).view_as(b).requires_grad_() for b in blocks]
    first = torch.autograd.grad(blocks, given, cotangents, create_graph=True)
    second = torch.autograd.grad(sum(part.square().sum() for part in first), [*given, *cotangents])
    return [*blocks, *first, *second]


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        scale = max(1.0, float(other.detach().abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one / scale, other / scale, rtol=0, atol=1e-12)


@st.composite
def products(draw):
    irrep = st.tuples(st.integers(0, 2), st.sampled_from([-1, 1]))
    irreps_in = o3.Irreps(draw(st.lists(st.tuples(st.sampled_from([1, 3, 8, 17]), irrep), min_size=1, max_size=3)))
    harmonics = [o3.Irrep(degree, (-1) ** degree) for degree in sorted(draw(st.sets(st.integers(0, 3), min_size=1)))]
    reached = sorted({out for _, ir in irreps_in for harmonic in harmonics for out in ir * harmonic})
    keep = draw(st.sets(st.sampled_from(reached), min_size=1, max_size=3))
    paths, _ = depthwise_paths(irreps_in, o3.Irreps([(1, ir) for ir in harmonics]), sorted(keep))
    return paths.with_heads(draw(st.integers(1, 5)))


@settings(max_examples=20, deadline=None)
@given(products(), st.integers(0, 12))
def test_value_and_derivatives_of_two_orders_are_those_of_the_reference(paths, num_edges):
    graph, given = graph_of(5, num_edges), arguments_of(paths, num_edges)
    assert_same(*(derivatives(name, paths, graph, given) for name in ("llvm", "reference")))


def test_it_is_the_weighted_sum_of_mapped_products_with_heads_side_by_side():
    paths, graph = paths_of(*SMALL), graph_of(3, 7)
    x, harmonics, weights, *maps = arguments_of(paths, 7)
    values = kernels.tensor_product_linear(x, harmonics, None, paths.single, maps)
    for found, value in zip(kernels.attended_product(x, harmonics, weights, graph, paths, maps), values, strict=True):
        of_heads = value.unflatten(2, (paths.heads, -1)) * weights[:, None, :, None]
        expected = value.new_zeros(3, *value.shape[1:]).index_add(0, graph.receiver, of_heads.flatten(2))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lanes", [2, 4, 8])
def test_vectors_of_any_width(lanes, monkeypatch):
    paths, graph = paths_of("5x0e + 8x1o", *SMALL[1:]), graph_of(4, 9)
    given = arguments_of(paths, 9)
    expected = derivatives("reference", paths, graph, given)
    monkeypatch.setattr(launch, "lanes", lambda size: lanes)
    launch.kernel_of.cache_clear()
    assert_same(derivatives("llvm", paths, graph, given), expected)
    launch.kernel_of.cache_clear()


def test_threads_share_it_and_change_nothing():
    paths, graph = paths_of("32x0e + 16x1o", *SMALL[1:3], 4), graph_of(300, 3000)
    given, before, found = arguments_of(paths, 3000), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(derivatives("llvm", paths, graph, given))
    finally:
        torch.set_num_threads(before)
    assert_same(found[0], derivatives("reference", paths, graph, given))
    assert_same(*found)


def test_only_what_needs_a_derivative_gets_one():
    paths, graph = paths_of(*SMALL), graph_of(4, 9)
    given = arguments_of(paths, 9)
    for n, one in enumerate(given):
        alone = [tensor if m == n else tensor.detach() for m, tensor in enumerate(given)]
        found = []
        for name in ("llvm", "reference"):
            with kernels.use(name):
                blocks = kernels.attended_product(*alone[:3], graph, paths, alone[3:])
            found.append(torch.autograd.grad(sum(block.sin().sum() for block in blocks), one))
        assert_same(*found)


def test_the_operator_keeps_the_rules_of_torch():
    paths, graph = paths_of(*SMALL), graph_of(3, 5)
    x, harmonics, weights, *_ = arguments_of(paths, 5)
    factors = [x, harmonics[:, : paths.harmonics_dim].detach().contiguous().requires_grad_(), weights]
    own, pointers = torch.arange(5), torch.arange(6)
    rest = (own, graph.receiver, graph.row_pointers, own, pointers, paths.description, "llvm")
    torch.library.opcheck(torch.ops.geoeq.tensor_product_conv, (*factors, *rest))
    cotangent = torch.randn(paths.out_shape(3), dtype=torch.float64, requires_grad=True)
    derivative = torch.ops.geoeq.tensor_product_conv_gradients
    torch.library.opcheck(derivative, (*factors, cotangent, *rest, [True] * 3))
    assert torch.autograd.gradgradcheck(lambda *f: torch.ops.geoeq.tensor_product_conv(*f, *rest), factors)


def test_compiled_derivatives():
    paths, graph = paths_of(*SMALL), graph_of(3, 7)
    given = arguments_of(paths, 7)

    def total(*given):
        return sum(block.sin().sum() for block in kernels.attended_product(*given[:3], graph, paths, given[3:]))

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    assert_same(torch.autograd.grad(compiled(*given), given), torch.autograd.grad(total(*given), given))


def test_what_does_not_fit():
    paths, graph = paths_of(*SMALL), graph_of(3, 7)
    x, harmonics, weights, *maps = arguments_of(paths, 7)
    with pytest.raises(TensorError, match="takes paths with heads"):
        kernels.attended_product(x, harmonics, weights, graph, paths.single, maps)
    with pytest.raises(TensorError, match="other products those without"):
        kernels.tensor_product(x, harmonics, None, paths)
    with pytest.raises(TensorError, match=r"weights have shape \[7, 1\]; this tensor product needs \[7, 2\]"):
        kernels.attended_product(x, harmonics, weights[:, :1], graph, paths, maps)
    with pytest.raises(TensorError, match="2 heads do not divide them"):
        kernels.attended_product(x, harmonics, weights, graph, paths, [matrix[:, :3] for matrix in maps])
    with pytest.raises(TensorError, match="the blocks of this tensor product have"):
        kernels.attended_product(x, harmonics, weights, graph, paths, maps[:1])
