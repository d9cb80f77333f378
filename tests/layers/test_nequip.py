"""NequIP's layer: its formula in e3nn's modules, its self-connections, and what it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from e3nn import o3

from geoeq.errors import InputError, TensorError
from geoeq.graph import Graph, build_graph
from geoeq.layers import Gate, NequIPLayer, XPLOREnvelope
from geoeq.layers.irreps.activation import activation_scale
from geoeq.layers.irreps.element_linear import ElementLinear
from geoeq.layers.irreps.layout import irreps_blocks, to_channels_last, to_e3nn_layout
from geoeq.symmetry import random_batch


def with_attributes(width: int) -> Graph:
    graph = build_graph(random_batch((5, 3)), 4.0, lmax=2)
    return dataclasses.replace(graph, edge_attr=torch.rand(len(graph.sender), width, dtype=torch.float64))


def test_the_sum_of_messages_is_that_of_e3nns_product() -> None:
    """For one scalar per irrep: Σ_j R(a_ij) V x_j ⊗ Y(r_ij) / sqrt(neighbors), then W and the gate."""
    irreps = o3.Irreps("3x0e + 2x1o")
    layer = NequIPLayer(irreps, "2x0e", 4, (), 1, self_connection="none", neighbors=9.0).double()
    graph = with_attributes(4)
    x = torch.randn(graph.num_nodes, irreps.dim, dtype=torch.float64)
    scalars, vectors = x[:, :3] @ layer.before.weights[0], x[:, 3:].view(-1, 2, 3).mT @ layer.before.weights[1]
    weights = graph.edge_attr @ layer.radial.matrices[0]  # [E, 3 + 2]
    harmonics = graph.harmonics[:, 1:4]
    dot = torch.einsum("emc,em->ec", vectors[graph.sender], harmonics) / 3**0.5
    messages = torch.cat([scalars[graph.sender], dot], dim=1) * weights
    sums = torch.zeros(graph.num_nodes, 5, dtype=torch.float64).index_add(0, graph.receiver, messages) / 3
    expected = torch.nn.functional.silu(sums @ layer.after.weights[0]) * activation_scale("silu")
    torch.testing.assert_close(layer(x, graph), expected, rtol=1e-12, atol=1e-12)


def test_a_map_for_each_element_is_the_tensor_product_with_its_embedding() -> None:
    irreps_in, irreps_out = o3.Irreps("3x0e + 2x1o + 1x0e"), o3.Irreps("2x1o + 5x0e")
    layer = ElementLinear(irreps_in, irreps_out, 4).double()
    numbers = torch.tensor([6, 1, 6, 8, 1])
    x = torch.randn(5, irreps_in.dim, dtype=torch.float64)
    product = o3.FullyConnectedTensorProduct(irreps_in, "4x0e", irreps_out, shared_weights=True).double()
    scalars, vectors = layer.weights[1], layer.weights[0]
    flat = [vectors.transpose(0, 1) * 8**0.5, *(16**0.5 * part.transpose(0, 1) for part in scalars.split([3, 1], 1))]
    weights = torch.cat([flat[1].flatten(), flat[0].flatten(), flat[2].flatten()])
    expected = product(x, layer.embedding(numbers), weights)
    blocks = layer.on_blocks(to_channels_last(x, irreps_blocks(irreps_in)), numbers)
    torch.testing.assert_close(to_e3nn_layout(blocks), expected, rtol=1e-12, atol=1e-12)


def test_without_a_self_connection_an_isolated_atom_has_no_features() -> None:
    layer = NequIPLayer("3x0e + 2x1o", "3x0e + 2x1o", 4, self_connection="none").double()
    graph = dataclasses.replace(build_graph(random_batch((1,)), 4.0, lmax=2), edge_attr=torch.zeros(0, 4).double())
    assert not layer(torch.randn(1, 9, dtype=torch.float64), graph).any()


def test_irreps_that_no_product_reaches_are_left_out() -> None:
    layer = NequIPLayer("4x0e", "4x0e + 4x0o + 4x1e + 4x1o", lmax_edge=1)
    assert layer.irreps_out == o3.Irreps("4x0e + 4x1o")
    with pytest.raises(InputError, match="NequIPLayer: no product of 4x0e and 1x0e reaches 2x1o"):
        NequIPLayer("4x0e", "2x1o", lmax_edge=0)


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match=r"No self_connection is called 'elements'.*Did you mean 'element'"):
        NequIPLayer("4x0e", "4x0e", self_connection="elements")
    layer = NequIPLayer("4x0e", "4x0e", 4, self_connection="element").double()
    graph = dataclasses.replace(with_attributes(4), numbers=None)
    with pytest.raises(TensorError, match=r"'element' needs atomic numbers \(data\.z\)"):
        layer(torch.randn(graph.num_nodes, 4, dtype=torch.float64), graph)
    with pytest.raises(InputError, match="no linear map from 4x0e reaches all of 4x1o"):
        ElementLinear(o3.Irreps("4x0e"), o3.Irreps("4x1o"), 2)
    with pytest.raises(InputError, match="'abs' would make pseudoscalars"):
        Gate("4x0e + 2x0o", odd="abs")


def test_the_envelope_of_xplor() -> None:
    """One up to the onset, zero from the cutoff on, with continuous slopes; in between as published."""
    envelope = XPLOREnvelope(5.0, 4.5)
    lengths = torch.tensor([0.0, 4.0, 4.5, 4.75, 5.0, 6.0], dtype=torch.float64, requires_grad=True)
    value = envelope(lengths).squeeze(-1)
    square = 4.75**2
    middle = (25 - square) ** 2 * (25 + 2 * square - 3 * 4.5**2) / (25 - 4.5**2) ** 3
    expected = torch.tensor([1, 1, 1, middle, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(value.detach(), expected, rtol=1e-12, atol=1e-14)
    (slope,) = torch.autograd.grad(value.sum(), lengths)
    assert not slope[[0, 1, 2, 4, 5]].abs().gt(1e-12).any()
    with pytest.raises(InputError, match=r"onset is 5\.0 Å; it must be less than the cutoff, 5\.0 Å"):
        XPLOREnvelope(5.0, 5.0)
