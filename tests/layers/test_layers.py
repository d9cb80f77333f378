"""Requirements on every layer; a new layer in ``geoeq.layers.__all__`` is tested here automatically."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data

import geoeq.layers
from geoeq.layers.layer import Layer, RadialFunction, Rowwise
from geoeq.symmetry import assert_equivariant, layer_graph, random_batch

ALL = geoeq.layers.__all__
LAYERS = [name for name in ALL if issubclass(getattr(geoeq.layers, name), Layer)]
RADIAL = [name for name in ALL if issubclass(getattr(geoeq.layers, name), RadialFunction)]
ROWWISE = [name for name in ALL if issubclass(getattr(geoeq.layers, name), Rowwise)]
#: Parts with another signature; each has its own test file.
PARTS = ["OrientationKernels", "PonitaLayer", "SO2Convolution", "TensorProductConv"]
#: Layers that do not depend on the positions.
WITHOUT_GEOMETRY = ["EquivariantGraphNorm", "StochasticDepth"]
DTYPES = [torch.float64, torch.float32]
EMBEDDINGS = ["EdgeEmbedding", "IrrepsEmbedding", "NodeEmbedding"]
TESTED = sorted(set(ALL) - set(PARTS))


def example(name, dtype=torch.float64):
    torch.manual_seed(0)
    return getattr(geoeq.layers, name).example().to(dtype)


def features(layer, num_nodes, dtype=torch.float64):
    return torch.randn(num_nodes, layer.irreps_in.dim, generator=torch.Generator().manual_seed(1), dtype=dtype)


def test_every_name_is_tested():
    assert sorted(LAYERS + ROWWISE + RADIAL + EMBEDDINGS + PARTS) == sorted(ALL)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("name", TESTED)
def test_is_equivariant(name, periodic, dtype):
    assert_equivariant(example(name, dtype), random_batch(periodic=periodic, dtype=dtype))


@pytest.mark.parametrize("name", LAYERS)
def test_output_has_the_declared_irreps_and_dtype(name):
    for dtype in DTYPES:
        layer = example(name, dtype)
        graph = layer_graph(layer, random_batch(dtype=dtype))
        out = layer(features(layer, graph.num_nodes, dtype), graph)
        assert out.shape == (graph.num_nodes, layer.irreps_out.dim)
        assert out.dtype == dtype


@pytest.mark.parametrize("name", LAYERS)
def test_no_edges_and_no_nodes(name):
    layer = example(name)
    atom = Data(pos=torch.zeros(1, 3, dtype=torch.float64), z=torch.tensor([6]))
    isolated = layer_graph(layer, Batch.from_data_list([atom] * 3))
    x = features(layer, 3).requires_grad_()
    out = layer(x, isolated)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert out.isfinite().all()
    assert gradient.isfinite().all()
    empty = Data(pos=torch.zeros(0, 3, dtype=torch.float64), z=torch.zeros(0, dtype=torch.int64))
    empty_graph = layer_graph(layer, empty)
    assert layer(features(layer, 0), empty_graph).shape == (0, layer.irreps_out.dim)


@pytest.mark.parametrize("name", sorted(set(LAYERS) - set(WITHOUT_GEOMETRY)))
def test_first_and_second_derivatives_are_finite_along_the_axes(name):
    axes = torch.cat([torch.zeros(1, 3), torch.eye(3), -torch.eye(3)]).double()
    layer = example(name)
    x = features(layer, 7)

    def total(pos):
        return layer(x, layer_graph(layer, Data(pos=pos, z=torch.arange(1, 8)))).square().sum()

    pos = axes.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(pos), pos, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), pos)
    assert gradient.isfinite().all()
    assert second.isfinite().all()
    assert gradient.abs().max() > 0


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "EquiformerV2Layer")) for name in LAYERS]
)
def test_second_derivatives_are_right(name):
    layer = example(name)
    x = features(layer, 4).requires_grad_()
    pos = random_batch((4,)).pos.clone().requires_grad_()
    inputs = (x, pos)

    def run(x, pos):
        return layer(x, layer_graph(layer, Data(pos=pos, z=torch.arange(1, 5))))

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


@pytest.mark.parametrize("name", LAYERS)
def test_compiles_as_one_graph(name):
    layer = example(name)
    graph = layer_graph(layer, random_batch())
    x = features(layer, graph.num_nodes)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, graph), layer(x, graph), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", RADIAL)
def test_radial_functions_have_the_declared_width_and_finite_derivatives(name):
    function = example(name)
    lengths = torch.tensor([0.0, 1e-6, 0.5, 3.9, 4.0, 4.1], dtype=torch.float64, requires_grad=True)
    out = function(lengths)
    (slope,) = torch.autograd.grad(out.sum(), lengths, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), lengths)
    assert out.shape == (6, function.width)
    assert out.isfinite().all()
    assert slope.isfinite().all()
    assert curvature.isfinite().all()
    assert function(lengths.float()).dtype == torch.float32


@pytest.mark.parametrize("name", ROWWISE)
def test_rowwise_layers_have_the_declared_irreps_and_derivatives(name):
    layer = example(name).eval()
    x = features(layer, 5)
    x[0] = 0  # an atom whose features vanish
    x.requires_grad_()
    out = layer(x)
    assert out.shape == (5, layer.irreps_out.dim)
    assert out.dtype == torch.float64
    assert layer(x[:0]).shape == (0, layer.irreps_out.dim)
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert gradient.isfinite().all()
    assert second.isfinite().all()
    inside = features(layer, 3).requires_grad_()
    assert torch.autograd.gradcheck(layer, (inside,))
    assert torch.autograd.gradgradcheck(layer, (inside,))


@pytest.mark.parametrize("name", ROWWISE)
def test_rowwise_layers_compile_as_one_graph(name):
    layer = example(name).eval()
    x = features(layer, 5)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
