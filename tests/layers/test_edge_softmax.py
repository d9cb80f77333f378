"""The softmax over edges, without and with an envelope."""

from __future__ import annotations

import torch
from torch_geometric.data import Data

from geoeq.graph import build_graph
from geoeq.layers.edge_softmax import edge_softmax
from geoeq.layers.radial.envelope import PolynomialEnvelope
from geoeq.symmetry import random_batch


def test_without_an_envelope_weights_sum_to_one():
    graph = build_graph(random_batch((5, 3)))
    weights = edge_softmax(torch.randn(len(graph.sender), 2, dtype=torch.float64), graph)
    total = torch.zeros(8, 2, dtype=torch.float64).index_add(0, graph.receiver, weights)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_an_edge_vanishes_smoothly_even_the_last():
    """Weights and their first two derivatives are continuous as a node's only neighbour passes the cutoff."""

    def weight(distance, dtype):
        x = torch.tensor(distance, dtype=dtype, requires_grad=True)
        pos = torch.stack([x.new_zeros(3), torch.stack([x, x * 0, x * 0])])
        graph = build_graph(Data(pos=pos, edge_index=torch.tensor([[0, 1], [1, 0]])))
        scores = torch.full((2, 1), 3.0, dtype=dtype) * graph.lengths[:, None]
        value = edge_softmax(scores, graph, PolynomialEnvelope(4.0)(graph.lengths)).sum()
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, x)
        return torch.stack([value, slope, curvature]).detach()

    for dtype in (torch.float64, torch.float32):
        beyond = weight(4.0 + 1e-6, dtype)
        assert (beyond == 0).all()
        for inside in (4.0, 4.0 - 1e-6, 4.0 - 1e-4):
            difference = weight(inside, dtype) - beyond
            assert difference.isfinite().all()
            assert (difference.abs() < torch.tensor([1e-8, 1e-4, 1e-1], dtype=dtype)).all()
    assert weight(1.0, torch.float64)[0] > 1.5
