"""What is particular to the SE(3)-Transformer: degrees, inputs, options, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError
from geoeq.graph import build_graph
from geoeq.layers import SE3Attention, SE3Block, SE3Convolution, SE3Norm
from geoeq.layers.se3_transformer.edge_basis import EdgeBasis
from geoeq.models import GraphScalar, IterativeSE3Transformer, NodeVector, Positions, SE3Transformer
from geoeq.symmetry import assert_equivariant, random_batch


def test_high_degrees_are_equivariant_and_forces_are_differences():
    torch.manual_seed(0)
    heads = [GraphScalar("energy"), NodeVector("forces")]
    model = SE3Transformer(heads, 4, 2, 3, attention_heads=2, cutoff=4.0, hidden=8).double()
    assert model.lmax == 6
    data = random_batch((6, 2))
    assert_equivariant(model, data)
    pos = data.pos.clone().requires_grad_()

    def run(pos):
        moved = data.clone()
        moved.pos = pos
        return model(moved)["energy"].sum()

    assert torch.autograd.gradcheck(run, (pos,), fast_mode=True)


def test_features_of_any_degree_are_inputs():
    """A given tensor turns what is predicted; velocities enter as vectors."""
    torch.manual_seed(0)
    model = SE3Transformer(
        [NodeVector("forces")],
        4,
        1,
        2,
        attention_heads=2,
        cutoff=4.0,
        node_inputs=["element", "features"],
        features_irreps="2x0e + 1x2e",
        velocity=True,
    ).double()
    data = random_batch((5,))
    data.x = torch.randn(5, 7, dtype=torch.float64)
    data.x.requires_grad_()
    data.vel.requires_grad_()
    gradients = torch.autograd.grad(model(data)["forces"].square().sum(), [data.x, data.vel])
    assert all((gradient.abs().sum(0) > 0).all() for gradient in gradients)


def test_a_basis_serves_layers_of_any_width():
    """What is made once for a graph is what a layer would make for itself."""
    torch.manual_seed(0)
    wide = SE3Block("3x0e", "4x0e + 4x1o", "2x0e + 2x1o", 2, 4, heads=2, hidden=6, cutoff=4.0).double()
    graph = dataclasses.replace(build_graph(random_batch(), 4.0, 3))
    graph = dataclasses.replace(graph, edge_attr=graph.lengths.unsqueeze(-1).repeat(1, 4))
    x = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    alone = x
    for layer, norm in zip(wide.layers, wide.norms, strict=True):
        alone = norm(layer(alone, graph))
    torch.testing.assert_close(wide(x, graph), wide.last(alone, graph))
    basis = EdgeBasis(graph, 4.0)
    plan = wide.layers[1].messages
    first = basis.couplings(plan.coupled[0], plan.constants_0)
    assert basis.couplings(plan.coupled[0], plan.constants_0) is first


def test_self_interaction_once_or_for_each_neighbour():
    torch.manual_seed(0)
    graph = dataclasses.replace(build_graph(random_batch((6, 1)), 4.0, 2))
    graph = dataclasses.replace(graph, edge_attr=graph.lengths.unsqueeze(-1))
    x = torch.randn(7, 3, dtype=torch.float64)
    once = SE3Convolution("3x0e", "2x0e", 1).double()
    each = SE3Convolution("3x0e", "2x0e", 1, self_per_edge=True).double()
    each.load_state_dict(once.state_dict())
    own = x @ once.own["0"].T
    torch.testing.assert_close(each(x, graph) - once(x, graph), own * (graph.degree - 1).unsqueeze(-1))
    assert not each(x, graph)[-1].any()


def test_the_published_nonlinearity_keeps_directions_and_sets_lengths():
    norm = SE3Norm("3x0e + 4x1o", "norm").double()
    x = torch.randn(5, 15, dtype=torch.float64)
    out = norm(x)
    vectors, new = x[:, 3:].view(5, 4, 3), out[:, 3:].view(5, 4, 3)
    lengths = torch.nn.functional.layer_norm(vectors.norm(dim=-1), (4,)).relu()
    torch.testing.assert_close(new, torch.nn.functional.normalize(vectors, dim=-1) * lengths.unsqueeze(-1))
    assert norm(torch.zeros(1, 15, dtype=torch.float64)).isfinite().all()


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="3 heads do not divide the 4 channels of values of degree 0"):
        SE3Attention("4x0e", "4x0e + 4x1o", 4, heads=3, channels_div=1)
    with pytest.raises(InputError, match="Queries need a degree that both 4x1o and 4x0e have"):
        SE3Attention("4x1o", "4x0e", 4, heads=1)
    with pytest.raises(InputError, match=r"each degree once.*4x1o\+4x1e"):
        SE3Convolution("4x1o+4x1e", "4x0e", 4)
    with pytest.raises(InputError, match="no input: give edge_width, or distance=True"):
        SE3Convolution("4x0e", "4x0e", 0)
    with pytest.raises(InputError, match="Did you mean 'output'"):
        SE3Convolution("4x0e", "4x0e", 4, sharing="outputs")
    with pytest.raises(InputError, match="2 layers and a convolution need 3 sharings, not 2"):
        SE3Block("4x0e", "4x0e", "4x0e", 2, 4, heads=1, sharing=["all", "all"])
    with pytest.raises(InputError, match="blocks is 0; it must be 1 or more"):
        IterativeSE3Transformer([Positions()], blocks=0)
    layer = SE3Convolution("4x1o", "4x2e", 4).double()
    x = torch.zeros(5, 12, dtype=torch.float64)
    graph = build_graph(random_batch((5,)), 4.0, 2)
    with pytest.raises(TensorError, match=r"needs 4 edge attributes .*the graph has none"):
        layer(x, graph)
    with pytest.raises(InputError, match="lmax=2; lmax=3 is needed"):
        layer(x, dataclasses.replace(graph, edge_attr=torch.zeros(len(graph.sender), 4, dtype=torch.float64)))
    with pytest.raises(TensorError, match="x needs 5 columns, it has 3"):
        SE3Transformer([], features_irreps="5x0e", embed=False)(Data(pos=torch.zeros(1, 3), x=torch.zeros(1, 3)))


def test_half_precision_of_a_training_step():
    """Under autocast the factors of a message come in several dtypes."""
    torch.manual_seed(0)
    model, data = SE3Transformer.example(), random_batch(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        energy = model(data)["energy"]
    energy.sum().backward()
    torch.testing.assert_close(energy, model(data)["energy"], rtol=2e-2, atol=2e-2)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_compiled_derivatives_are_the_same():
    torch.manual_seed(0)
    model, data = SE3Transformer.example().double(), random_batch()
    graph = build_graph(data, 4.0)
    data.edge_index = torch.stack([graph.sender, graph.receiver])
    data.edge_cutoff = torch.full((data.num_graphs,), 4.0)
    data.pos.requires_grad_()

    def forces(function):
        return torch.autograd.grad(function(data)["energy"].sum(), data.pos)[0]

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(forces(compiled), forces(model))


def test_the_bounded_norm_never_enlarges_a_feature():
    norm = SE3Norm("4x0e + 4x1o + 4x2e")
    for size in (1e-12, 1.0, 1e6):
        x = size * torch.randn(5, 36)
        out = norm(x)[:, 4:]
        assert (out.abs() <= 1.6 * x[:, 4:].abs()).all()
        assert out.abs().max() < 30
