"""PONITA's layer: its invariance when the orientations rotate too, and its formula."""

from __future__ import annotations

import pytest
import torch

from geoeq.errors import InputError
from geoeq.geometry.rotations import random_rotations
from geoeq.graph import build_graph
from geoeq.layers import OrientationKernels, PonitaLayer
from geoeq.layers.sphere.sphere_points import spread_points
from geoeq.symmetry import random_batch

P, C, B = 6, 4, 8


@pytest.fixture
def graph():
    return build_graph(random_batch((5, 1)), 4.0)


def parts(**changes):
    torch.manual_seed(0)
    kernels = OrientationKernels(**({"width": B, "hidden": 8, "cutoff": 4.0} | changes)).double()
    layer = PonitaLayer(C, B, P if kernels.fibre else 1, layer_scale=0.5).double()
    for parameter in (*kernels.parameters(), *layer.parameters()):
        torch.nn.init.normal_(parameter, std=0.5)
    return kernels, layer


def features(graph, count=P):
    return torch.randn(graph.num_nodes, count, C, dtype=torch.float64)


@pytest.mark.parametrize("invariants", ["length", "perpendicular"])
def test_rotating_graph_and_orientations_together_changes_nothing(graph, invariants):
    kernels, layer = parts(invariants=invariants)
    x, points = features(graph), spread_points(P)
    expected = layer(x, kernels(graph.vectors, points, graph), graph)
    for matrix in (random_rotations(1, dtype=torch.float64)[0], -torch.eye(3, dtype=torch.float64)):
        result = layer(x, kernels(graph.vectors @ matrix.T, points @ matrix.T, graph), graph)
        torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)
        other = layer(x, kernels(graph.vectors @ matrix.T, points, graph), graph)
        assert (other - expected).abs().max() > 1e-2


def test_the_order_of_orientations_does_not_matter(graph):
    kernels, layer = parts()
    x, points, order = features(graph), spread_points(P), torch.randperm(P)
    expected = layer(x, kernels(graph.vectors, points, graph), graph)[:, order]
    result = layer(x[:, order], kernels(graph.vectors, points[order], graph), graph)
    torch.testing.assert_close(result, expected, rtol=1e-11, atol=1e-11)


def test_convolution_is_its_formula(graph):
    """Compare with a loop over edges and orientations."""
    kernels, layer = parts()
    x, points = features(graph), spread_points(P)
    edge, fibre = layer.kernel, layer.fibre_kernel
    y = torch.zeros_like(x)
    for o in range(P):
        for e in range(len(graph.sender)):
            along, length = graph.vectors[e] @ points[o], graph.lengths[e]
            inputs = torch.stack([along, length, along * along, along * length, length * along, length * length])
            window = kernels.envelope(length[None])[0]
            y[graph.receiver[e], o] += edge(kernels.edge.network(inputs) * window) * x[graph.sender[e], o]
        y[:, o] += edge(kernels.edge.network(torch.zeros(6, dtype=torch.float64))) * x[:, o]
    expected = layer.bias.expand_as(x).clone()
    for o in range(P):
        for other in range(P):
            cosine = points[o] @ points[other]
            expected[:, o] += fibre(kernels.fibre.network(torch.stack([cosine, cosine**2]))) * y[:, other] / P
    torch.testing.assert_close(layer.convolve(x, kernels(graph.vectors, points, graph), graph), expected)


def test_perpendicular_part_is_the_distance_from_the_line(graph):
    kernels, _ = parts(invariants="perpendicular")
    points = spread_points(P)
    along, across = kernels._invariants(graph.vectors, points, graph).unbind(-1)
    torch.testing.assert_close(along**2 + across**2, (graph.lengths**2)[:, None].expand_as(along))
    assert (across >= 0).all()


def test_without_orientations_only_lengths_matter(graph):
    kernels, layer = parts(oriented=False)
    x, none = features(graph, 1), torch.zeros(1, 3, dtype=torch.float64)
    expected = layer(x, kernels(graph.vectors, none, graph), graph)
    assert torch.equal(layer(x, kernels(torch.randn_like(graph.vectors), none, graph), graph), expected)


def test_invalid_options_are_refused():
    with pytest.raises(InputError, match="Did you mean 'perpendicular'"):
        parts(invariants="perpendiculr")
    with pytest.raises(InputError, match="degree is 0; it must be 1 or more"):
        parts(degree=0)
