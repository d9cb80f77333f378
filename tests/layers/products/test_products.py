"""Edge products equal their definitions, agree with each other, and have the documented expressivity."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError
from geoeq.geometry.harmonics import harmonics
from geoeq.graph import build_graph
from geoeq.layers.irreps.layout import from_coefficients, sphere_irreps, to_coefficients
from geoeq.layers.products import (
    ClebschGordanProduct,
    EdgeFrameProduct,
    GauntFourier,
    GauntFourierProduct,
    GauntGrid,
    GauntGridProduct,
    Product,
    clebsch_gordan_product,
    edge_product,
    gaunt_factor,
    product_paths,
)
from geoeq.layers.products.tensor_convolution import TensorConvolution
from geoeq.layers.radial.bases import BesselBasis
from geoeq.symmetry import assert_equivariant, layer_graph, random_batch

ROOT = Path(__file__).resolve().parents[3]
NAMES = get_args(Product)
PRODUCTS = [(name, "E(3)") for name in NAMES] + [("clebsch_gordan", "SE(3)"), ("edge_frame", "SE(3)")]
#: products whose features, harmonics and result have degrees of their own.
UNEVEN = [
    ClebschGordanProduct(1, 2, 1, 3, group="SE(3)"),
    ClebschGordanProduct(1, 1, 2, 2),
    GauntFourierProduct(1, 1, 2, 2),
    GauntFourierProduct(1, 1, 0, 1),
    GauntGridProduct(1, 2, 1, 3),
    EdgeFrameProduct(1, 1, 2, group="SE(3)"),
    EdgeFrameProduct(1, 2, 1),
]
EVERY = [edge_product(name, 1, lmax, group=group) for lmax in (0, 2) for name, group in PRODUCTS] + UNEVEN


def label(product):
    return f"{type(product).__name__}-{product.lmax}{product.lmax_edge}{product.lmax_out}-{product.group}"


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def edges(vectors, lmax):
    """Return a graph with one edge per vector, from its tip to a separate node."""
    count = len(vectors)
    pos = torch.cat([torch.zeros_like(vectors), vectors])
    edge_index = torch.stack([torch.arange(count, 2 * count), torch.arange(count)])
    return build_graph(Data(pos=pos, edge_index=edge_index), lmax=lmax)


def maps(product, directions, weights):
    """Return the matrix of each edge's linear map for uniform weights, [E, K_out, K]."""
    graph = edges(directions, product.lmax_edge)
    size = (product.lmax + 1) ** 2
    own = weights.expand(len(directions), -1)
    units = torch.eye(size, dtype=torch.float64).reshape(size, 1, size, 1).expand(-1, len(own), -1, -1)
    columns = [product.messages(unit, own, graph) for unit in units]
    return torch.stack(columns, dim=-1).squeeze(2)


@pytest.mark.parametrize(("degrees", "lmax_out"), [((2, 2), None), ((3, 1), 2), ((1, 2), 1), ((0, 3), 2), ((2, 1), 5)])
def test_gaunt_products_equal_the_clebsch_gordan_product_with_gaunt_factors(degrees, lmax_out):
    x, y = (random(4, (degree + 1) ** 2, 3, seed=degree) for degree in degrees)
    highest = sum(degrees) if lmax_out is None else lmax_out
    factors = [gaunt_factor(*path) for path in product_paths(*degrees, highest)]
    expected = clebsch_gordan_product(x, y, torch.tensor(factors, dtype=torch.float64).unsqueeze(-1), highest)
    for form in (GauntGrid, GauntFourier):
        product = form(degrees, lmax_out)
        torch.testing.assert_close(product(x, y), expected, rtol=1e-12, atol=1e-12)
        assert product.float()(x.float(), y.float()).dtype == torch.float32


@pytest.mark.parametrize("form", [GauntGrid, GauntFourier])
def test_the_product_of_signals_is_that_of_their_values(form):
    x, y, z = random(2, 4, 1, seed=1), random(2, 9, 3, seed=2), random(2, 4, 3, seed=3)
    point = nn.functional.normalize(random(1, 3, seed=4), dim=-1)
    one = torch.ones(1, dtype=torch.float64)
    values = [(harmonics(point, one, degree)[0, :, None] * f).sum(1) for degree, f in ((1, x), (2, y), (1, z))]
    product = form((1, 2, 1))(x, y, z)
    found = (harmonics(point, one, 4)[0, :, None] * product).sum(1)
    torch.testing.assert_close(found, values[0] * values[1] * values[2], rtol=1e-12, atol=1e-12)


def test_clebsch_gordan_product_of_features_is_that_of_edges():
    x, vectors = random(3, 9, 2), random(3, 3, seed=1)
    for group in ("E(3)", "SE(3)"):
        product = ClebschGordanProduct(2, 2, 2, 2, group=group)
        into = [sum(path[2] == l3 for path in product.interactions) for l3 in range(3)]
        weights = random(3, len(product.interactions), 2, seed=2)
        graph = edges(vectors, 2)
        scale = torch.tensor([into[path[2]] for path in product.interactions], dtype=torch.float64).rsqrt()
        expected = clebsch_gordan_product(
            x, graph.harmonics.unsqueeze(-1), weights * scale.unsqueeze(-1), lmax_out=2, group=group
        )
        found = product.messages(x, weights.flatten(1), graph)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("product", EVERY, ids=label)
def test_expressivity_is_the_rank_of_all_maps(product):
    """Generic rank of the derivative of the bilinear map with respect to the weights."""
    directions = random(2 * (product.lmax_edge + 1) ** 2, 3)
    weights = 1 + random(product.weight_numel, seed=1).abs()
    jacobian = torch.func.jacrev(lambda w: maps(product, directions, w).flatten())(weights)
    singular = torch.linalg.svdvals(jacobian)
    assert int((singular > 1e-9 * singular[0]).sum()) == product.expressivity


@pytest.mark.parametrize("product", EVERY, ids=label)
def test_interactions_are_the_triples_that_are_not_zero(product):
    top = product.lmax + product.lmax_out
    directions = random(4 * (top + 1) ** 2, 3)
    values = maps(product, directions, 1 + random(product.weight_numel, seed=1).abs())
    basis = harmonics(directions, directions.norm(dim=-1), top)
    spectrum = torch.linalg.lstsq(basis, values.flatten(1)).solution.unflatten(1, values.shape[1:])
    torch.testing.assert_close((basis @ spectrum.flatten(1)), values.flatten(1), rtol=1e-9, atol=1e-9)

    def block(degree):
        return slice(degree**2, (degree + 1) ** 2)

    found = [
        (l1, l2, l3)
        for l1 in range(product.lmax + 1)
        for l3 in range(product.lmax_out + 1)
        for l2 in range(top + 1)
        if spectrum[block(l2), block(l3), block(l1)].abs().max() > 1e-9
    ]
    assert found == product.interactions


@pytest.mark.parametrize("group", ["E(3)", "SE(3)"])
def test_the_edge_frame_reaches_the_paths_of_all_harmonics(group):
    frame, full = EdgeFrameProduct(1, 2, group=group), ClebschGordanProduct(1, 2, 4, 2, group=group)
    assert frame.expressivity == full.expressivity
    directions = random(40, 3)
    spans = [
        torch.func.jacrev(lambda w, product=product: maps(product, directions, w).flatten())(
            torch.zeros(product.weight_numel, dtype=torch.float64)
        )
        for product in (frame, full)
    ]
    both = torch.linalg.svdvals(torch.cat(spans, dim=1))
    assert int((both > 1e-9 * both[0]).sum()) == full.expressivity


def test_orders_above_mmax_are_omitted():
    product = EdgeFrameProduct(2, 3, group="SE(3)", mmax=1)
    assert product.expressivity == 16 + 2 * 9
    x, weights, graph = random(5, 16, 2), random(5, product.weight_numel, seed=1), edges(random(5, 3, seed=2), 0)
    full = EdgeFrameProduct(2, 3, group="SE(3)")
    more = torch.cat([weights, weights.new_zeros(5, full.weight_numel - product.weight_numel)], dim=1)
    torch.testing.assert_close(product.messages(x, weights, graph), full.messages(x, more, graph))


class Convolution(nn.Module):
    """A product with weights from the distance, in a form that the symmetry check accepts."""

    def __init__(self, product, channels=2):
        super().__init__()
        self.product, self.channels, self.group = product, channels, product.group
        self.irreps_in = sphere_irreps(product.lmax, channels)
        self.irreps_out = sphere_irreps(product.lmax_out, channels)
        self.radial = nn.Linear(6, product.weight_numel).double()

    def forward(self, x, graph):
        weights = self.radial(BesselBasis(6, 4.0)(graph.lengths))
        out = self.product(to_coefficients(x, self.product.lmax, self.channels), weights, graph)
        return from_coefficients(out, self.product.lmax_out)


@pytest.mark.parametrize(("name", "group"), PRODUCTS)
@pytest.mark.parametrize("lmax", [1, 3])
def test_products_are_equivariant(name, group, lmax):
    torch.manual_seed(0)
    assert_equivariant(Convolution(edge_product(name, 2, lmax, group=group)), tolerance=1e-12)


@pytest.mark.parametrize(("name", "group"), PRODUCTS)
def test_products_preserve_the_variance(name, group):
    product = edge_product(name, 16, 3, group=group)
    x, weights = random(500, 16, 16), random(500, product.weight_numel, seed=1)
    out = product.messages(x, weights, edges(random(500, 3, seed=2), 3))
    for degree in range(4):
        assert 0.8 < out[:, degree**2 : (degree + 1) ** 2].square().mean() < 1.25


@pytest.mark.parametrize(("name", "group"), PRODUCTS)
def test_products_sum_their_messages_at_the_receivers(name, group):
    product = edge_product(name, 2, 2, group=group)
    graph = build_graph(Data(pos=random(5, 3)), lmax=2)
    x, weights = random(5, 9, 2, seed=1), random(20, product.weight_numel, seed=2)
    envelope = random(20, 1, seed=3)
    messages = product.messages(x[graph.sender], weights, graph)
    expected = torch.zeros(5, 9, 2, dtype=torch.float64)
    expected.index_add_(0, graph.receiver, messages * envelope.unsqueeze(-1))
    torch.testing.assert_close(product(x, weights, graph, envelope), expected)
    single = build_graph(Data(pos=random(5, 3).float()), lmax=2)
    assert product(x.float(), weights.float(), single).dtype == torch.float32


def test_invalid_options_and_inputs_are_refused():
    with pytest.raises(InputError, match="Did you mean 'gaunt_grid'"):
        edge_product("gaunt_gird", 4, 2)
    with pytest.raises(InputError, match="respects reflections"):
        edge_product("gaunt_grid", 4, 2, group="SE(3)")
    with pytest.raises(InputError, match="omit lmax_edge"):
        edge_product("edge_frame", 4, 2, 2)
    with pytest.raises(InputError, match="Degree 5 cannot be reached"):
        ClebschGordanProduct(4, 2, 2, 5)
    with pytest.raises(InputError, match="group must be"):
        ClebschGordanProduct(4, 2, group="O(3)")
    with pytest.raises(InputError, match="lmax must be from 0"):
        GauntGridProduct(4, 12)
    with pytest.raises(TensorError, match="lmax=2"):
        ClebschGordanProduct(4, 2)(random(3, 9, 4), random(6, 24), build_graph(Data(pos=random(3, 3)), lmax=1))
    with pytest.raises(TensorError, match=r"degrees \(2, 1\); expected \(1, 2\)"):
        GauntGrid((1, 2))(random(1, 9, 1), random(1, 4, 1))
    with pytest.raises(TensorError, match="square number of rows"):
        GauntGrid((1, 2))(random(1, 8, 1), random(1, 4, 1))


def convolution(name, group="E(3)", lmax=2, **options):
    torch.manual_seed(0)
    layer = TensorConvolution(2, lmax, name, 4, (4,), group=group, neighbors=2.0, cutoff=4.0, **options).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize(("name", "group"), PRODUCTS)
def test_convolutions_have_correct_first_and_second_derivatives(name, group):
    layer = convolution(name, group)
    axes = torch.tensor([[0.0, 0, 0], [0, 1.5, 0], [0, 0, 1.5]], dtype=torch.float64)
    x, pos = random(3, 18).requires_grad_(), axes.requires_grad_()

    def run(x, pos):
        return layer(x, layer_graph(layer, Data(pos=pos, z=torch.arange(1, 4))))[:2, :8]

    assert torch.autograd.gradcheck(run, (x, pos))
    assert torch.autograd.gradgradcheck(lambda pos: run(x.detach(), pos), (pos,))


@pytest.mark.parametrize(("name", "group"), PRODUCTS)
def test_convolutions_compile_and_allow_scalars_only(name, group):
    assert_equivariant(convolution(name, group, lmax=0), tolerance=1e-11)
    torch.compiler.reset()  # each case is a class of its own
    layer = convolution(name, group, lmax=1)
    graph = layer_graph(layer, random_batch((4, 3)))
    x = random(graph.num_nodes, layer.irreps_in.dim)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, graph), layer(x, graph), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_messages_vanish_smoothly_at_the_cutoff(name):
    layer = convolution(name)
    x = random(2, 18)

    def at(distance):
        pos = torch.tensor([[0.0, 0, 0], [0, 0, distance]], dtype=torch.float64, requires_grad=True)
        graph = build_graph(Data(pos=pos, z=torch.ones(2)), 4.0, 2)
        basis = torch.stack([graph.lengths.pow(power) for power in range(4)], dim=-1)
        out = layer(x, dataclasses.replace(graph, edge_attr=basis)).square().sum()
        return out.detach(), torch.autograd.grad(out, pos, allow_unused=True)[0]

    (inside, slope), (outside, _), (near, strong) = at(4 - 1e-4), at(4 + 1e-4), at(3.0)
    assert abs(inside - outside) < 1e-9
    assert slope.abs().max() < 1e-5 < 1e-2 < strong.abs().max()
    assert abs(near - outside) > 1e-2


def test_the_counts_in_the_documentation_are_correct():
    spec = importlib.util.spec_from_file_location("benchmark_products", ROOT / "benchmarks" / "products.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    results = (ROOT / "benchmarks" / "results" / "products.md").read_text(encoding="utf-8")
    assert "\n".join(benchmark.counts()) in results
