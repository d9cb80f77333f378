"""Embeddings depend on exactly the inputs that they name, and report which one is missing."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError
from geoeq.graph import build_graph
from geoeq.layers import EdgeEmbedding, IrrepsEmbedding, NodeEmbedding
from geoeq.symmetry import random_batch


def test_node_embedding_is_the_sum_of_table_entry_and_linear_map():
    data = random_batch()
    embedding = NodeEmbedding(6, ("element", "speed", "charge", "features"), features_width=4).double()
    inputs = torch.cat([data.vel.norm(dim=-1, keepdim=True), data.charge[:, None], data.x], dim=-1)
    expected = embedding.element.weight[data.z] + embedding.linear(inputs)
    torch.testing.assert_close(embedding(data), expected)


def test_edge_embedding_concatenates_its_inputs():
    data = random_batch()
    graph = build_graph(data, 4.0)
    embedding = EdgeEmbedding(("charge_product", "square_distance", "bessel"), num_basis=3, cutoff=4.0).double()
    product = data.charge[graph.receiver] * data.charge[graph.sender]
    expected = torch.cat([product[:, None], graph.lengths[:, None] ** 2, embedding.basis(graph.lengths)], dim=-1)
    torch.testing.assert_close(embedding(data, graph), expected)
    assert embedding.width == 5
    assert EdgeEmbedding()(data, graph) is None


def test_speed_has_a_derivative_at_rest():
    velocity = torch.zeros(1, 3, requires_grad=True)
    data = Data(pos=torch.zeros(1, 3), vel=velocity)
    (gradient,) = torch.autograd.grad(NodeEmbedding(4, ("speed",))(data).sum(), velocity)
    assert torch.equal(gradient, torch.zeros(1, 3))


def test_edge_attributes_follow_their_edges():
    pos = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [0, 2.0, 0]])
    edge_index = torch.tensor([[2, 0, 1], [1, 2, 0]])
    data = Data(pos=pos, edge_index=edge_index, edge_attr=torch.tensor([[21.0], [2.0], [10.0]]))
    graph = build_graph(data)
    out = EdgeEmbedding(("edge_attr",), edge_attr_width=1)(data, graph)
    assert out[:, 0].tolist() == (10 * graph.sender + graph.receiver).float().tolist()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NodeEmbedding(4, ("elements",)), "Did you mean 'element'"),
        (lambda: NodeEmbedding(4, ()), "node_inputs is empty"),
        (lambda: NodeEmbedding(4, ("features",)), "give both or neither"),
        (lambda: NodeEmbedding(4, features_width=3), "give both or neither"),
        (lambda: EdgeEmbedding(("besel",)), "Did you mean 'bessel'"),
        (lambda: EdgeEmbedding(("bessel",)), "needs a cutoff"),
        (lambda: EdgeEmbedding(("edge_attr",)), "give both or neither"),
    ],
)
def test_wrong_inputs(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_missing_data_is_named():
    data = Data(pos=torch.zeros(2, 3))
    with pytest.raises(TensorError, match=r"'element' needs data\.z"):
        NodeEmbedding(4)(data)
    with pytest.raises(TensorError, match=r"'speed' needs data\.vel"):
        NodeEmbedding(4, ("speed",))(data)
    data.x = torch.zeros(2, 3)
    with pytest.raises(TensorError, match=r"data\.x has 3 columns; the model expects 2"):
        NodeEmbedding(4, ("features",), features_width=2)(data)
    graph = build_graph(Data(pos=torch.eye(3)[:2]))
    with pytest.raises(TensorError, match=r"'edge_attr' needs data\.edge_attr"):
        EdgeEmbedding(("edge_attr",), edge_attr_width=1)(data, graph)


def test_vectors_map_to_vectors_and_the_rest_is_zero():
    torch.manual_seed(0)
    embedding = IrrepsEmbedding("4x0e + 2x1o + 3x2e", ("features",), "5x0e + 2x1o", velocity=True).double()
    data = random_batch()
    data.x = torch.randn(data.num_nodes, 11, dtype=torch.float64)
    out = embedding(data)
    vectors = torch.cat([data.x[:, 5:].reshape(-1, 2, 3), data.vel[:, None]], dim=1)
    expected = torch.einsum("ov,nvi->noi", embedding.maps[0].weight, vectors)
    torch.testing.assert_close(out[:, 4:10].reshape(-1, 2, 3), expected)
    assert (out[:, 10:] == 0).all()
    with pytest.raises(InputError, match="1x1o have no place"):
        IrrepsEmbedding("4x0e + 2x1e", velocity=True)
    IrrepsEmbedding("4x0e + 2x1e", velocity=True, group="SE(3)")
    with pytest.raises(InputError, match="come first"):
        IrrepsEmbedding("2x1o + 4x0e")
