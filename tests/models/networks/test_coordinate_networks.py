"""Networks of coordinates as they are: against their formulas, and made symmetric from outside or layer by layer."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from geoeq.errors import InputError, TensorError
from geoeq.graph import build_graph
from geoeq.layers import GNNLayer, TransformerLayer
from geoeq.layers.transformer import with_loops
from geoeq.models import FAGNN, GNN, DecodedVector, FrameAveraging, GraphScalar, Positions, Transformer
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch

CHARGED = ["charge_product", "square_distance"]


def strong(model):
    """No branch is switched off."""
    torch.manual_seed(1)
    model = model.double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def gnn(**changes):
    return strong(GNN([GraphScalar("energy"), DecodedVector("positions")], **({"width": 8, "layers": 2} | changes)))


def transformer(**changes):
    heads = [GraphScalar("energy"), DecodedVector("positions")]
    return strong(Transformer(heads, **({"width": 8, "layers": 2, "attention_heads": 2} | changes)))


def pairs(count):
    return [(i, j) for i in range(count) for j in range(count) if i != j]


# Against the formulas.


def test_messages_are_those_of_the_formula():
    layer = strong(GNNLayer(4, edge_width=2))
    data = random_batch((5,))
    graph = build_graph(data)
    attributes = torch.randn(20, 2, dtype=torch.float64)
    x = torch.randn(5, 4, dtype=torch.float64)
    found = layer(x, build_graph(data.clone().update({"edge_attr": attributes, "edge_index": senders(graph)})))
    total = torch.zeros(5, 4, dtype=torch.float64)
    for e in range(20):
        i, j = int(graph.receiver[e]), int(graph.sender[e])
        given = torch.cat([x[i], x[j], attributes[e]])
        total[i] += layer.message(layer.edge.weight @ given + layer.edge.bias)
    torch.testing.assert_close(found, x + layer.update(torch.cat([x, total], dim=-1)))


def senders(graph):
    return torch.stack([graph.sender, graph.receiver])


def test_attention_is_that_of_torch_in_each_graph():
    """All pairs of a graph and each node itself: softmax over the whole graph, and over nothing of the others."""
    layer = strong(TransformerLayer(8, attention_heads=2))
    data = random_batch((5, 1, 3))
    x = torch.randn(9, 8, dtype=torch.float64)
    found = layer(x, with_loops(build_graph(data)))
    for k in range(3):
        rows = data.batch == k
        parts = layer.query_key_value(layer.attention_norm(x[rows])).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (2, 4)).transpose(0, 1) for part in parts)
        expected = x[rows] + layer.out(scaled_dot_product_attention(query, key, value).transpose(0, 1).flatten(1))
        expected = expected + layer.network(layer.network_norm(expected))
        torch.testing.assert_close(found[rows], expected)


def test_distances_are_nothing_to_a_plain_transformer_and_something_with_a_bias():
    graph = with_loops(build_graph(random_batch((5,))))
    other = with_loops(build_graph(random_batch((5,), seed=1)))
    x = torch.randn(5, 8, dtype=torch.float64)
    plain, biased = strong(TransformerLayer(8)), strong(TransformerLayer(8, num_basis=4, basis_cutoff=5.0))
    assert torch.equal(plain(x, graph), plain(x, other))
    assert (biased(x, graph) - biased(x, other)).abs().max() > 1e-3


def published_fa_gnn(model, data):
    """The published computation for graphs of five nodes, written with dense tensors; axes in descending order.

    Returns what is decoded, [G, 5, 3], turned back and without the centroid that the published code then adds.
    """
    signs = torch.tensor(list(itertools.product([1.0, -1.0], repeat=3)), dtype=torch.float64)

    def framed(points):  # [G, P, 3] -> [G, 8, P, 3] and the frames [G, 8, 3, 3]
        points = points - points.mean(1, keepdim=True)
        axes = torch.linalg.eigh(points.mT @ points)[1].flip(-1)
        frames = signs[None, :, None, :] * axes[:, None]
        return points[:, None] @ frames, frames

    def layer(block, h, edges):  # [G, 8, 5, C]
        total = torch.zeros_like(h)
        for e, (i, j) in enumerate(pairs(5)):
            attributes = edges[:, None, e].expand(-1, 8, -1)
            given = torch.cat([h[:, :, i], h[:, :, j], attributes], dim=-1)
            total[:, :, i] += block.message(given @ block.edge.weight.T + block.edge.bias)
        return h + block.update(torch.cat([h, total], dim=-1))

    pos, charge = data.pos.view(-1, 5, 3), data.charge.view(-1, 5)
    edges = torch.stack(
        [torch.stack([charge[:, i] * charge[:, j], (pos[:, i] - pos[:, j]).square().sum(-1)], -1) for i, j in pairs(5)],
        dim=1,
    )
    seen, frames = framed(pos)
    h = model.embedding.coordinates(seen)
    for block in model.layers[:-1]:
        latent = layer(block, h, edges).unflatten(-1, (-1, 3)).flatten(2, 3)  # [G, 8, 5 V, 3]
        seen, frames = framed((latent @ frames.mT).mean(1))
        h = seen.unflatten(2, (5, -1)).flatten(3)
    return (model.decoder(layer(model.layers[-1], h, edges)) @ frames.mT).mean(1)


def test_fa_gnn_is_the_published_computation():
    settings = FAGNN.PRESETS["nbody"] | {"width": 12, "layers": 3, "velocity": False}
    model = strong(FAGNN([Positions()], **settings))
    data = random_batch((5, 5, 5))
    expected = data.pos + published_fa_gnn(model, data).flatten(0, 1)
    torch.testing.assert_close(model(data)["positions"], expected, rtol=1e-9, atol=1e-9)


# Symmetry.


@pytest.mark.parametrize("make", [gnn, transformer])
def test_by_themselves_they_keep_translations_alone(make):
    model = make(velocity=True, node_inputs=["element", "charge", "speed"])
    assert model.group == "T(3)"
    assert_equivariant(model)
    errors = equivariance_errors(model, symmetries=("rotation", "reflection"))
    assert min(errors.values()) > 1e-2


@pytest.mark.parametrize("frames", ["full", "weighted"])
@pytest.mark.parametrize("make", [gnn, transformer])
def test_in_frames_they_are_equivariant(make, frames):
    """Later positions too, which move with the origin: frames take the centroid off and give it back."""
    assert_equivariant(FrameAveraging(make(velocity=True), frames=frames), random_batch((5, 1, 9, 2)))


@pytest.mark.parametrize("scalars", [0, 3])
@pytest.mark.parametrize("velocity", [False, True])
def test_fa_gnn_is_equivariant_by_itself(scalars, velocity):
    heads = [GraphScalar("energy"), Positions()]
    model = FAGNN(heads, width=15, layers=3, scalars=scalars, edge_inputs=CHARGED, velocity=velocity)
    assert_equivariant(strong(model), random_batch((5, 1, 9, 2)))


def test_the_centroid_is_felt_at_any_distance():
    """The price of coordinates: an atom out of reach changes where the others think that they are."""
    data = random_batch((4,))
    far = data.clone()
    far.pos[3] += 100
    farther = data.clone()
    farther.pos[3] += 200
    for model in (gnn(cutoff=4.0), transformer(cutoff=4.0)):
        assert (model(far)["energy"] - model(farther)["energy"]).abs() > 1e-3


# Inputs.


def test_without_any_invariant_input_places_are_left():
    data = random_batch((5,))
    for model in (gnn(node_inputs=[]), transformer(node_inputs=[])):
        before = model(data)["energy"]
        other = data.clone().update({"z": data.z + 1, "charge": -data.charge})
        assert torch.equal(model(other)["energy"], before)


def test_velocities_are_taken_where_asked_for():
    data = random_batch((5,))
    other = data.clone().update({"vel": 2 * data.vel})
    for make in (gnn, transformer):
        assert torch.equal(make()(data)["energy"], make()(other)["energy"])
        assert not torch.equal(make(velocity=True)(data)["energy"], make(velocity=True)(other)["energy"])
    del data.vel
    with pytest.raises(TensorError, match=r"velocity=True needs data\.vel"):
        gnn(velocity=True)(data)


def test_wrong_sizes_are_refused():
    with pytest.raises(InputError, match="8 channels are not a multiple of 3 heads"):
        TransformerLayer(8, attention_heads=3)
    with pytest.raises(InputError, match="needs basis_cutoff"):
        TransformerLayer(8, num_basis=4)
    with pytest.raises(InputError, match="width - scalars is 14; it must be a positive multiple of 3"):
        FAGNN([Positions()], width=16, scalars=2)
    with pytest.raises(InputError, match="outputs of DecodedVector do not rotate with the input, as those of FAGNN"):
        FAGNN([DecodedVector("positions")])
    with pytest.raises(InputError, match="needs a vector channel"):
        GNN([Positions()])
    with pytest.raises(TensorError, match="GNNLayer: x has 3 columns; expected 4"):
        GNNLayer(4)(torch.zeros(2, 3), build_graph(random_batch((2,))))
    with pytest.raises(TensorError, match="TransformerLayer: x has 3 columns; expected 4"):
        TransformerLayer(4)(torch.zeros(2, 3), build_graph(random_batch((2,))))
