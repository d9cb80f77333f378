"""The tensor-product convolution is e3nn's product, gathered and summed."""

from __future__ import annotations

import dataclasses

import e3nn
import pytest
import torch
from e3nn import o3
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError, TensorError
from geoeq.graph import build_graph
from geoeq.layers import TensorProductConv
from geoeq.layers.products.tensor_paths import depthwise_paths, fully_connected_paths
from geoeq.symmetry import assert_equivariant, random_batch

CASES = [
    ("4x0e + 3x1o + 2x2e", "0e + 1o + 2e", "0e + 1o + 1e + 2e", "uvu"),
    ("2x2e + 3x0o + 4x0e + 3x1e", "0e + 1o + 2e + 3o", "0o + 0e + 1o + 1e + 3e", "uvu"),
    ("4x0e + 3x1e", "0e + 1e", "0e + 1e", "uvu"),
    ("2x0e + 3x0e + 3x1o", "0e + 1o", "5x0e + 2x1o + 3x1e + 2x0e", "uvw"),
    ("3x1o + 2x2e", "1o + 2e", "2x0e + 4x3o + 1x1e", "uvw"),
    ("2x4e", "0e + 1o + 2e + 3o + 4e", "0e + 4e + 6e", "uvu"),
]


@pytest.fixture(autouse=True)
def float64():
    """Set the default dtype to float64, in which e3nn computes its constants."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def inputs(conv, seed=0, num_atoms=(5, 4)):
    generator = torch.Generator().manual_seed(seed)
    graph = build_graph(random_batch(num_atoms), 4.0, lmax=4)
    x = torch.randn(graph.num_nodes, conv.irreps_in.dim, generator=generator)
    return x, torch.randn(graph.sender.shape[0], conv.weight_numel, generator=generator), graph


def harmonics_of(conv, graph):
    return torch.cat([graph.harmonics[:, ir.l**2 : (ir.l + 1) ** 2] for _, ir in conv.irreps_harmonics], dim=1)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_product_of_e3nn(case):
    conv = TensorProductConv(*case)
    x, weights, graph = inputs(conv)
    product = conv.to_e3nn()
    assert product.weight_numel == conv.weight_numel
    assert product.irreps_out.simplify() == conv.irreps_out.simplify()
    messages = product(x[graph.sender], harmonics_of(conv, graph), weights)
    expected = torch.zeros(graph.num_nodes, conv.irreps_out.dim).index_add(0, graph.receiver, messages)
    torch.testing.assert_close(conv(x, weights, graph), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["uvu", "uvw"])
def test_first_and_second_derivatives(mode):
    conv = TensorProductConv("2x0e + 1x1o", "0e + 1o", "2x0e + 1x1o + 1x1e", mode)
    x, weights, graph = inputs(conv, num_atoms=(3,))
    variables = (x.requires_grad_(), graph.harmonics.clone().requires_grad_(), weights.requires_grad_())

    def run(x, harmonics, weights):
        return kernels.tensor_product_conv(x, harmonics, weights, graph, conv.paths)

    assert torch.autograd.gradcheck(run, variables)
    assert torch.autograd.gradgradcheck(run, variables)


@pytest.mark.parametrize("case", CASES)
def test_is_equivariant_in_its_group(case):
    conv = TensorProductConv(*case)

    class Weighed(torch.nn.Module):
        irreps_in, irreps_out, group = conv.irreps_in, conv.irreps_out, conv.group

        def forward(self, x, graph):
            weights = torch.linspace(1, 2, conv.weight_numel) * graph.lengths.unsqueeze(1)
            graph = build_graph(Data(pos=graph.positions, ptr=graph.ptr), 4.0, lmax=4)
            return conv(x, weights, graph)

    assert_equivariant(Weighed())
    assert conv.group == ("SE(3)" if "1e" in case[1] else "E(3)")


def test_uvu_without_weights_has_weights_of_one():
    conv = TensorProductConv.example()
    x = torch.randn(7, conv.irreps_in.dim)
    harmonics = torch.randn(7, 9)
    plain = kernels.tensor_product(x, harmonics, None, conv.paths)
    for one, other in zip(
        plain, kernels.tensor_product(x, harmonics, torch.ones(7, conv.weight_numel), conv.paths), strict=True
    ):
        assert torch.equal(one, other)
    with pytest.raises(TensorError, match="'uvw' needs weights"):
        kernels.tensor_product(x, harmonics, None, TensorProductConv(conv.irreps_in, "0e", "4x0e", "uvw").paths)


@pytest.mark.parametrize("case", CASES)
def test_a_linear_map_of_the_product(case):
    conv = TensorProductConv(*case)
    x, harmonics = torch.randn(7, conv.irreps_in.dim), torch.randn(7, 25)
    weights = torch.randn(7, conv.weight_numel)
    maps = [torch.randn(channels, 3) for _, channels in conv.paths.out_blocks]
    whole = kernels.tensor_product(x, harmonics, weights, conv.paths)
    mapped = kernels.tensor_product_linear(x, harmonics, weights, conv.paths, maps)
    for block, matrix, value in zip(whole, maps, mapped, strict=True):
        torch.testing.assert_close(value, block @ matrix)
    with pytest.raises(TensorError, match="blocks of this tensor product have"):
        kernels.tensor_product_linear(x, harmonics, weights, conv.paths, maps[1:])


def test_no_edges_and_no_nodes():
    conv = TensorProductConv.example()
    lonely = build_graph(Data(pos=torch.zeros(1, 3)), 4.0, lmax=2)
    weights = torch.zeros(0, conv.weight_numel)
    assert torch.equal(conv(torch.ones(1, 23), weights, lonely), torch.zeros(1, conv.irreps_out.dim))
    nobody = build_graph(Data(pos=torch.zeros(0, 3)), 4.0, lmax=2)
    assert conv(torch.ones(0, 23), weights, nobody).shape == (0, conv.irreps_out.dim)


def test_other_backends_leave_tensor_products_to_the_reference():
    conv = TensorProductConv.example()
    x, weights, graph = inputs(conv)
    expected = conv(x, weights, graph)
    for status in kernels.report():
        if status.available:
            with kernels.use(status.name):
                torch.testing.assert_close(conv(x, weights, graph), expected)


def test_compiles_as_one_graph():
    conv = TensorProductConv.example()
    x, weights, graph = inputs(conv)
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, weights, graph), conv(x, weights, graph))


@pytest.mark.parametrize("mode", ["uvu", "uvw"])
def test_unreachable_irreps_are_refused(mode):
    with pytest.raises(InputError, match=r"No path from 4x0e\+2x1o with harmonics .* reaches 0o, 3e"):
        TensorProductConv("4x0e + 2x1o", "0e + 1o + 2e", "4x0e + 2x0o + 1x3e", mode)


@pytest.mark.parametrize("harmonics", ["0e + 2x1o", "0e + 1o + 1o", "0e + 1o + 1e", "0e + 0x1o"])
def test_several_harmonics_of_a_degree_are_refused(harmonics):
    """The functions that build paths read one harmonic of each degree; they silently took one of two."""
    several = o3.Irreps(harmonics)
    refused = pytest.raises(InputError, match=r"has [02] harmonics of degree 1.*e3nn.o3.TensorProduct")
    for build in (
        lambda: TensorProductConv("4x0e", harmonics, "1o"),
        lambda: depthwise_paths(o3.Irreps("4x0e"), several, [o3.Irrep("1o")]),
        lambda: fully_connected_paths(o3.Irreps("4x0e"), several, o3.Irreps("1o")),
    ):
        with refused:
            build()


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="'uvu' or 'uvw'"):
        TensorProductConv("4x0e", "0e", "0e", "uuu")
    conv = TensorProductConv("4x0e", "0e + 3o", "3o")
    x, weights, graph = inputs(conv)
    with pytest.raises(TensorError, match="x has 3 columns; expected 4"):
        conv(x[:, :3], weights, graph)
    with pytest.raises(TensorError, match=r"weights have shape .* needs \[\d+, 4\]"):
        conv(x, weights[:, :1], graph)
    with pytest.raises(TensorError, match=r"at least 16 columns \(lmax 3\)"):
        conv(x, weights, build_graph(random_batch((5, 4)), 4.0, lmax=2))


def test_couplings_are_those_of_e3nn():
    assert torch.equal(kernels.coupling(1, 2, 3), o3.wigner_3j(1, 2, 3))
    with pytest.raises(InputError, match="do not couple"):
        kernels.coupling(1, 1, 3)
    assert e3nn.__version__ >= "0.5"  # phases of older ones differ


def test_to_e3nn_is_exact_in_the_dtype_of_the_module():
    torch.set_default_dtype(torch.float32)
    conv = TensorProductConv.example()
    assert conv.to_e3nn()(*(torch.ones(1, n) for n in (23, 9, conv.weight_numel))).dtype == torch.float32
    conv = conv.double()
    x, harmonics, weights = (torch.linspace(0, 1, n, dtype=torch.float64)[None] for n in (23, 9, conv.weight_numel))
    graph = build_graph(Data(pos=torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]).double()), None, lmax=2)
    graph = dataclasses.replace(graph, harmonics=harmonics.expand(2, -1))
    expected = conv.to_e3nn()(x, harmonics, weights)
    out = conv(x.expand(2, -1), weights.expand(2, -1), graph)
    torch.testing.assert_close(out[:1], expected, rtol=1e-13, atol=1e-13)
