"""eSCN's layer: its symmetry, the error of its grids, and the inputs that it refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError
from geoeq.layers import ESCNLayer
from geoeq.symmetry import equivariance_errors, layer_graph, random_batch


def make_layer(**changes):
    torch.manual_seed(0)
    sizes = {"lmax": 2, "mmax": 1, "channels": 4, "hidden": 4, "edge_channels": 4, "edge_width": 4}
    return ESCNLayer(**(sizes | {"resolution": 24, "cutoff": 4.0} | changes)).double()


def test_is_equivariant_to_rotations_and_not_to_reflections():
    errors = equivariance_errors(make_layer(), random_batch(dtype=torch.float64), symmetries=("rotation", "reflection"))
    assert errors["rotation", "features"] < 2e-4
    assert errors["reflection", "features"] > 0.1


def test_result_converges_with_the_resolution():
    graph = layer_graph(make_layer(), random_batch(dtype=torch.float64))
    x = torch.randn(graph.num_nodes, 36, dtype=torch.float64)
    finest, *coarser = (make_layer(resolution=size)(x, graph).detach() for size in (48, 24, 12, 6))
    differences = [float((out - finest).abs().max()) for out in coarser]
    assert differences[0] < 1e-2 * differences[1] < 1e-2 * differences[2]


def test_an_isolated_atom_depends_only_on_its_features():
    layer = make_layer()
    atom = layer_graph(layer, Data(pos=torch.zeros(1, 3, dtype=torch.float64), z=torch.tensor([6])))
    x = torch.randn(1, 36, dtype=torch.float64)
    again = dataclasses.replace(atom, numbers=torch.tensor([1]))
    assert torch.equal(layer(x, atom), layer(x, again))


def test_elements_of_sender_and_receiver_matter_separately():
    layer = make_layer()
    graph = layer_graph(layer, random_batch((2,), dtype=torch.float64))
    x = torch.randn(2, 36, dtype=torch.float64)
    pairs = [torch.tensor(pair) for pair in ([6, 1], [1, 6], [1, 1])]
    outputs = [layer(x, dataclasses.replace(graph, numbers=numbers)) for numbers in pairs]
    assert all(not torch.allclose(outputs[i], outputs[j]) for i in range(3) for j in range(i))
    without = make_layer(elements=False)
    bare = dataclasses.replace(graph, numbers=None)
    assert torch.equal(without(x, graph), without(x, bare))


def test_invalid_options_and_inputs_are_refused():
    with pytest.raises(InputError, match="ESCNLayer: edge_width is 0; it must be 1 or more"):
        make_layer(edge_width=0)
    with pytest.raises(InputError, match="between 0 and lmax = 2, not 3"):
        make_layer(mmax=3)
    layer = make_layer()
    graph = layer_graph(layer, random_batch(dtype=torch.float64))
    x = torch.randn(graph.num_nodes, 36, dtype=torch.float64)
    with pytest.raises(TensorError, match="x has 35 columns; expected 36"):
        layer(x[:, 1:], graph)
    with pytest.raises(TensorError, match=r"needs 4 edge attributes .*the graph has none"):
        layer(x, dataclasses.replace(graph, edge_attr=None))
    with pytest.raises(TensorError, match=r"elements .*are needed"):
        layer(x, dataclasses.replace(graph, numbers=None))
