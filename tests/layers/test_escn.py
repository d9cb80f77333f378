"""The layer of eSCN: what it refuses, what it is symmetric to, and that its grids alone make its error."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError
from geoeq.layers import ESCNLayer
from geoeq.symmetry import equivariance_errors, layer_graph, random_batch


def made(**changes):
    torch.manual_seed(0)
    sizes = {"lmax": 2, "mmax": 1, "channels": 4, "hidden": 4, "edge_channels": 4, "edge_width": 4}
    return ESCNLayer(**(sizes | {"resolution": 24, "cutoff": 4.0} | changes)).double()


def test_it_turns_with_rotations_and_tells_a_molecule_from_its_mirror_image():
    errors = equivariance_errors(made(), random_batch(dtype=torch.float64), symmetries=("rotation", "reflection"))
    assert errors["rotation", "features"] < 2e-4
    assert errors["reflection", "features"] > 0.1


def test_finer_grids_change_the_result_less_and_less():
    graph = layer_graph(made(), random_batch(dtype=torch.float64))
    x = torch.randn(graph.num_nodes, 36, dtype=torch.float64)
    finest, *coarser = (made(resolution=size)(x, graph).detach() for size in (48, 24, 12, 6))
    differences = [float((out - finest).abs().max()) for out in coarser]
    assert differences[0] < 1e-2 * differences[1] < 1e-2 * differences[2]


def test_all_that_is_left_of_an_isolated_atom_is_its_own():
    layer = made()
    atom = layer_graph(layer, Data(pos=torch.zeros(1, 3, dtype=torch.float64), z=torch.tensor([6])))
    x = torch.randn(1, 36, dtype=torch.float64)
    again = dataclasses.replace(atom, numbers=torch.tensor([1]))
    assert torch.equal(layer(x, atom), layer(x, again))


def test_elements_at_both_ends_matter_each_in_its_own_way():
    layer = made()
    graph = layer_graph(layer, random_batch((2,), dtype=torch.float64))
    x = torch.randn(2, 36, dtype=torch.float64)
    pairs = [torch.tensor(pair) for pair in ([6, 1], [1, 6], [1, 1])]
    outputs = [layer(x, dataclasses.replace(graph, numbers=numbers)) for numbers in pairs]
    assert all(not torch.allclose(outputs[i], outputs[j]) for i in range(3) for j in range(i))
    without = made(elements=False)
    bare = dataclasses.replace(graph, numbers=None)
    assert torch.equal(without(x, graph), without(x, bare))


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="edge_width is at least 1"):
        made(edge_width=0)
    with pytest.raises(InputError, match="between 0 and lmax = 2, not 3"):
        made(mmax=3)
    layer = made()
    graph = layer_graph(layer, random_batch(dtype=torch.float64))
    x = torch.randn(graph.num_nodes, 36, dtype=torch.float64)
    with pytest.raises(TensorError, match="x has 35 columns; expected 36"):
        layer(x[:, 1:], graph)
    with pytest.raises(TensorError, match=r"needs 4 edge attributes .*the graph has none"):
        layer(x, dataclasses.replace(graph, edge_attr=None))
    with pytest.raises(TensorError, match="elements are needed"):
        layer(x, dataclasses.replace(graph, numbers=None))
