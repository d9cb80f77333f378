"""The iterative SE(3)-Transformer: positions that move between blocks, and derivatives through them."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch_geometric.data import Batch

from geoeq.graph import build_graph, displace
from geoeq.models import IterativeSE3Transformer, Positions
from geoeq.symmetry import random_batch


def moving(cutoff):
    torch.manual_seed(0)
    model = IterativeSE3Transformer([Positions()], 3, 1, 4, attention_heads=2, cutoff=cutoff, hidden=8).double()
    for move in model.moves:
        torch.nn.init.normal_(move, std=0.2)
    return model


def test_each_block_sees_the_positions_that_those_before_have_moved():
    """By hand: the graph is built anew from the new positions for each block."""
    model, data = moving(None), random_batch((5, 3))
    x, now = model.embedding(data), data.clone()
    for n, block in enumerate(model.blocks):
        graph = build_graph(now, None, model.lmax)
        graph = dataclasses.replace(graph, edge_attr=model.edge_embedding(now, graph))
        x = block(x, graph)
        width = 8 if n == 2 else 4
        now = now.clone()
        now.pos = now.pos + torch.einsum("c,ncv->nv", model.moves[n], x[:, width : width + 12].view(-1, 4, 3))
        assert (now.pos - data.pos).norm(dim=-1).min() > 1e-3
    torch.testing.assert_close(model(data)["positions"], now.pos)


def test_derivatives_go_through_the_moved_geometry():
    model, data = moving(5.0), random_batch((4,))
    pos = data.pos.clone().requires_grad_()

    def run(pos):
        moved = data.clone()
        moved.pos = pos
        return model(moved)["positions"]

    assert torch.autograd.gradcheck(run, (pos,), fast_mode=True)


def test_periodic_structures_move_as_one():
    """Atoms wrapped into other images are the same crystal: displacements do not change."""
    model, data = moving(4.0), random_batch((5,), periodic=True)
    wrapped = data.clone()
    shifts = torch.tensor([[1, 0, -1], [0, 2, 0], [0, 0, 0], [-1, 1, 0], [0, 0, 3]], dtype=torch.float64)
    wrapped.pos = data.pos + shifts @ data.cell[0]
    moves = model(data)["positions"] - data.pos
    assert moves.norm(dim=-1).min() > 1e-3
    torch.testing.assert_close(model(wrapped)["positions"] - wrapped.pos, moves)


@pytest.mark.parametrize("periodic", [False, True])
def test_a_displaced_graph_is_the_graph_of_displaced_positions(periodic):
    data = random_batch(periodic=periodic)
    graph = build_graph(data, 4.0, 2)
    shift = 1e-9 * torch.randn(data.pos.shape, dtype=torch.float64)  # no edge comes or goes
    moved = Batch.from_data_list(data.to_data_list())
    moved.pos = data.pos + shift
    anew = build_graph(moved, 4.0, 2)
    assert torch.equal(anew.sender, graph.sender)
    found = displace(graph, shift)
    for name in ("vectors", "lengths", "harmonics", "positions"):
        torch.testing.assert_close(getattr(found, name), getattr(anew, name), rtol=0, atol=1e-13)
    assert (found.vectors - graph.vectors).abs().max() > 0
