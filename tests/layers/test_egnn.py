"""The EGNN layer and its parts, compared with the equations."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError
from geoeq.graph import build_graph
from geoeq.layers import EGNNLayer
from geoeq.layers.layer import EdgeLinear
from geoeq.symmetry import assert_equivariant, random_batch

C = 6


@pytest.fixture
def graph():
    return build_graph(random_batch((5, 3)))


def layer_and_features(graph, **options):
    torch.manual_seed(3)
    layer = EGNNLayer(C, **options).double()
    if layer.pull is not None:
        torch.nn.init.normal_(layer.pull[2].weight)
    return layer, torch.randn(graph.num_nodes, layer.irreps_in.dim, dtype=torch.float64)


def test_layer_is_its_equations(graph):
    layer, x = layer_and_features(graph, velocity=True, attention=True)
    h, shift, velocity = x[:, :C], x[:, C : C + 3], x[:, C + 3 :]
    positions = graph.positions + shift
    expected_h, expected_shift = h.clone(), shift + layer.drift(h) * velocity
    for i in range(graph.num_nodes):
        total = torch.zeros(C, dtype=torch.float64)
        pulls = []
        for j in range(graph.num_nodes):
            if i == j or graph.batch[i] != graph.batch[j]:
                continue
            d = positions[i] - positions[j]
            inputs = torch.cat([h[i], h[j], d.square().sum()[None]])
            m = layer.message(layer.edge.weight @ inputs + layer.edge.bias)
            m = m * layer.gate(m)
            pulls.append(d * layer.pull(m))
            total = total + m
        expected_shift[i] += torch.stack(pulls).mean(0)
        expected_h[i] += layer.update(torch.cat([h[i], total]))
    expected = torch.cat([expected_h, expected_shift, velocity], dim=-1)
    torch.testing.assert_close(layer(x, graph), expected, rtol=1e-12, atol=1e-12)


def test_edge_linear_is_one_linear_map_of_the_concatenation(graph):
    linear = EdgeLinear(C, 2, 7).double()
    x, edges = torch.randn(graph.num_nodes, C).double(), torch.randn(len(graph.sender), 2).double()
    whole = torch.cat([x[graph.receiver], x[graph.sender], edges], dim=-1)
    torch.testing.assert_close(linear(x, edges, graph), whole @ linear.weight.T + linear.bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"velocity": True},
        {"attention": True, "normalize": "length"},
        {"normalize": "length_plus_one", "tanh": True},
        {"residual": False, "cutoff": 4.0},
        {"update_positions": False},
    ],
)
def test_every_option_is_equivariant(options, graph):
    layer, _ = layer_and_features(graph, **options)
    assert_equivariant(layer)


def test_options_change_the_result(graph):
    torch.manual_seed(0)
    plain, x = layer_and_features(graph)
    for name, value in {"normalize": "length", "tanh": True, "residual": False, "clamp": 1e-3}.items():
        other, _ = layer_and_features(graph, **{name: value})
        other.load_state_dict(plain.state_dict())
        assert not torch.allclose(other(x, graph), plain(x, graph))


def test_edge_attributes_matter_and_are_required(graph):
    layer, x = layer_and_features(graph, edge_width=2)
    with pytest.raises(TensorError, match=r"needs 2 edge attributes .*the graph has none"):
        layer(x, graph)
    one, other = (
        dataclasses.replace(graph, edge_attr=torch.full((len(graph.sender), 2), value).double()) for value in (0.0, 1.0)
    )
    assert not torch.allclose(layer(x, one), layer(x, other))


def test_messages_vanish_smoothly_at_the_cutoff():
    layer = EGNNLayer(C, cutoff=4.0).double()
    torch.nn.init.normal_(layer.pull[2].weight)
    x = torch.randn(2, C + 3, dtype=torch.float64)

    def at(distance):
        pos = torch.tensor([[0.0, 0, 0], [distance, 0, 0]], dtype=torch.float64)
        return layer(x, build_graph(Data(pos=pos), 4.0))

    torch.testing.assert_close(at(4 - 1e-6), at(4 + 1e-6), rtol=0, atol=1e-9)
    assert not torch.allclose(at(3.0), at(4.1))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"update_positions": False, "attention": True},
        {"velocity": True, "cutoff": 4.0, "edge_width": 2, "clamp": 1.0},
    ],
)
def test_frozen_layers_compute_messages_in_chunks(options, graph, monkeypatch):
    layer, x = layer_and_features(graph, **options)
    vectors = graph.vectors.clone().requires_grad_()
    attributes = torch.randn(len(vectors), 2, dtype=torch.float64)
    inputs_graph = dataclasses.replace(graph, vectors=vectors, lengths=vectors.norm(dim=-1), edge_attr=attributes)
    x.requires_grad_()
    inputs = (x, vectors)
    sizes = []
    messages = layer._messages
    monkeypatch.setattr(layer, "_messages", lambda *rows: sizes.append(len(rows[0])) or messages(*rows))
    monkeypatch.setattr("geoeq.layers.egnn.LARGE", 0)
    monkeypatch.setattr("geoeq.layers.egnn.CHUNK", 5)

    def value_and_derivatives():
        out = layer(x, inputs_graph)
        first = torch.autograd.grad(out.sin().sum(), inputs, create_graph=True)
        return out, *first, *torch.autograd.grad(sum(part.cos().sum() for part in first), inputs, retain_graph=True)

    expected = value_and_derivatives()
    assert sizes == [len(vectors)]
    layer.requires_grad_(False)
    result = value_and_derivatives()
    assert max(sizes[1:]) == 5
    for one, other in zip(result, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)

    layer.edge.bias.requires_grad_()  # one trainable parameter disables chunks
    layer(x, inputs_graph).sum().backward()
    assert layer.edge.bias.grad.abs().max() > 0


def test_invalid_width_and_option_are_refused():
    layer = EGNNLayer(C)
    with pytest.raises(TensorError, match=r"x has 5 columns; expected 9"):
        layer(torch.zeros(2, 5), build_graph(Data(pos=torch.eye(3)[:2])))
    with pytest.raises(InputError, match="normalize must be"):
        EGNNLayer(C, normalize="unit")
