"""EquiformerV2: what the suite of all models does not try."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geoeq.errors import CheckpointError, InputError, TensorError
from geoeq.graph import build_graph, edge_frames
from geoeq.layers import GaussianBasis
from geoeq.layers.edge_frames import edge_convolution, so2, so2_attention
from geoeq.layers.edge_frames.edge_degree import EdgeDegreeEmbedding
from geoeq.layers.edge_frames.so2 import from_edge_frame
from geoeq.layers.radial.edge_network import EdgeNetwork
from geoeq.layers.sphere.sphere_norm import SphereNorm
from geoeq.models import EGNN, AttentionVector, EquiformerV2, SphereScalar
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch

GOLDEN = Path(__file__).parents[2] / "golden" / "equiformer_v2"
SMALL = {
    "lmax": 3,
    "mmax": 2,
    "hidden_channels": 4,
    "alpha_channels": 3,
    "value_channels": 2,
    "edge_channels": 4,
    "cutoff": 4.0,
}


def network(**changes):
    torch.manual_seed(0)
    settings = SMALL | {"activation": "gate", "resolution": None} | changes
    feed_forward = settings.pop("feed_forward", "gate")
    ends = settings.get("atom_edge_embedding", "separate")
    keys = ("mmax", "hidden_channels", "alpha_channels", "value_channels", "edge_channels", "cutoff")
    head = {key: settings[key] for key in (*keys, "activation", "resolution")}
    heads = [
        SphereScalar("energy", 4, feed_forward, settings["resolution"]),
        AttentionVector(
            "forces", heads=2, edge_width=14 if ends == "shared" else 6, elements=ends == "separate", **head
        ),
    ]
    sizes = {"layers": 2, "channels": 4, "attention_heads": 2, "feed_forward_channels": 4, "num_basis": 6}
    model = EquiformerV2(heads, feed_forward=feed_forward, average_degree=4.0, **sizes, **settings).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": "layer_norm"},
        {"norm": "rms_norm_sh", "mmax": 1, "atom_edge_embedding": "shared"},
        {"lmax": 2, "mmax": 0, "renormalize": False, "atom_edge_embedding": "none"},
        {"lmax": 4, "mmax": 3, "scores_from_values": True},
    ],
    ids=lambda changes: " ".join(map(str, changes)),
)
def test_with_gates_it_is_exactly_equivariant(changes):
    assert_equivariant(network(**changes), random_batch(), tolerance=1e-9)


@pytest.mark.parametrize(
    ("activation", "feed_forward"), [("separable_s2", "separable_grid_mlp"), ("s2", "s2"), ("gate", "grid_mlp")]
)
def test_on_a_grid_the_error_falls_with_the_resolution(activation, feed_forward):
    def error(resolution):
        model = network(lmax=2, activation=activation, feed_forward=feed_forward, resolution=resolution)
        return max(equivariance_errors(model, random_batch(), symmetries=("rotation",)).values())

    coarse, finer, fine = error(8), error(16), error(32)
    assert coarse > 1e-6
    assert finer < coarse / 10
    assert fine < 1e-6
    assert fine < finer / 10


def test_the_published_derivatives_take_frames_for_constants():
    data = random_batch()
    data.pos.requires_grad_()
    exact, published = network(), network(detach_frames=True)
    energies = [model(data)["energy"].sum() for model in (exact, published)]
    torch.testing.assert_close(*energies)
    gradients = [torch.autograd.grad(energy, data.pos)[0] for energy in energies]
    assert (gradients[0] - gradients[1]).norm() > 1e-3 * gradients[0].norm()


def test_checkpoints_change_nothing_but_memory():
    data = random_batch()
    data.pos.requires_grad_()
    found = []
    for kept in (False, True):
        model = network(checkpoint_blocks=kept, activation="separable_s2", feed_forward="separable_grid_mlp")
        energy = model(data)["energy"]
        (forces,) = torch.autograd.grad(energy.sum(), data.pos, create_graph=True)
        parameter = model.layers[0].attention.alpha
        (second,) = torch.autograd.grad(forces.square().sum(), parameter)
        found.append([energy, forces, second])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_branches_and_attention_are_dropped_in_training_alone():
    model, data = network(drop_path=0.5, alpha_dropout=0.5), random_batch()
    assert torch.equal(model(data)["energy"], model(data)["energy"])
    model.train()
    assert not torch.equal(model(data)["energy"], model(data)["energy"])


def edges(lmax):
    data = random_batch()
    graph = build_graph(data, 4.0, lmax)
    object.__setattr__(graph, "edge_attr", GaussianBasis(5, 4.0)(graph.lengths))
    return graph


def test_the_first_map_in_parts_is_that_of_the_concatenation():
    graph, net = edges(0), EdgeNetwork(5, 4, 3, elements=True).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    whole = torch.cat([net.first.weight, net.first_sender.weight, net.first_receiver.weight], dim=1)
    ends = [net.ends.sender(graph.numbers[graph.sender]), net.ends.receiver(graph.numbers[graph.receiver])]
    hidden = torch.cat([graph.edge_attr, *ends], dim=1) @ whole.T + net.first.bias
    torch.testing.assert_close(net(graph), net.last(net.rest(hidden)))


def test_harmonics_are_the_orders_zero_turned_back():
    """The published form of the start: weights at m = 0 in the frame of an edge, zeros elsewhere, and turned back."""
    lmax, mmax, channels = 3, 1, 4
    graph, start = edges(lmax), EdgeDegreeEmbedding(lmax, mmax, channels, 5, 4, True, average_degree=3.0).double()
    weights = start.network(graph).unflatten(1, (lmax + 1, channels))
    rows = torch.cat([weights, weights.new_zeros(len(weights), 2 * lmax, channels)], dim=1)
    turned = from_edge_frame(rows, edge_frames(graph, lmax), lmax, mmax, rescale=True)
    expected = torch.zeros(graph.num_nodes, (lmax + 1) ** 2, channels, dtype=torch.float64)
    expected.index_add_(0, graph.receiver, turned / 3)
    torch.testing.assert_close(start(graph), expected)


@pytest.mark.parametrize("kind", ["layer_norm", "layer_norm_sh", "rms_norm_sh"])
def test_norms_are_their_formulas(kind):
    norm = SphereNorm(3, 5, kind).double()
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(4, 16, 5, dtype=torch.float64)
    centred = torch.cat([x[:, :1] - x[:, :1].mean(-1, keepdim=True), x[:, 1:]], dim=1)
    blocks = centred.split([1, 3, 5, 7], dim=1)
    square = torch.stack([block.square().mean((1, 2)) for block in blocks])  # [L + 1, N]
    groups = {"layer_norm": [0, 1, 2, 3], "layer_norm_sh": [0, 1, 1, 1], "rms_norm_sh": [0, 0, 0, 0]}[kind]
    for degree, (block, found) in enumerate(zip(blocks, norm(x).split([1, 3, 5, 7], dim=1), strict=True)):
        mine = square[[other for other in range(4) if groups[other] == groups[degree]]].mean(0)
        expected = block / (mine + 1e-5).sqrt()[:, None, None] * norm.weight[degree]
        torch.testing.assert_close(found, expected + norm.bias if degree == 0 else expected)


@pytest.mark.parametrize("module", [edge_convolution, so2_attention, so2], ids=lambda module: module.__name__)
def test_edges_in_chunks_are_all_edges_at_once(module, monkeypatch):
    """Value, derivatives by parameters and positions, and second derivatives."""
    data = random_batch()
    data.pos.requires_grad_()
    found = []
    for chunk in (10**6, 7):
        monkeypatch.setattr(module, "CHUNK", chunk)
        model = network(mmax=1)
        outputs = model(data)
        total = outputs["energy"].sum() + outputs["forces"].square().sum()
        inputs = [data.pos, *model.parameters()]
        plain = torch.autograd.grad(total, inputs, retain_graph=True, allow_unused=True)
        forces = torch.autograd.grad(total, data.pos, create_graph=True)[0]
        second = torch.autograd.grad(forces.square().sum(), inputs, allow_unused=True)
        found.append([total, forces, *plain, *second])
        torch.testing.assert_close(forces, plain[0])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="basis_cutoff at which its Gaussians end"):
        EquiformerV2([SphereScalar()], cutoff=None)
    with pytest.raises(InputError, match="same number of channels of every degree"):
        EGNN([SphereScalar()], width=8, layers=1)
    with pytest.raises(InputError, match="needs features of degree 1"):
        network(lmax=0, mmax=0)
    with pytest.raises(InputError, match="Did you mean 'shared'"):
        network(atom_edge_embedding="share")
    with pytest.raises(InputError, match="Did you mean 'layer_norm'"):
        network(norm="layer_nrm")
    with pytest.raises(InputError, match="even number of latitudes, at least 8"):
        network(activation="s2", resolution=6)
    model, data = network(), random_batch()
    del data.z
    with pytest.raises(TensorError, match=r"data\.z"):
        model(data)


def reference():
    path = GOLDEN / "gate_l2m2.safetensors"
    parameters = {key[6:]: value for key, value in load_file(path).items() if key.startswith("param.")}
    return parameters, json.loads(path.with_suffix(".json").read_text())["hyperparameters"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmax_list": [2, 2]}, "one resolution is supported"),
        ({"distance_function": "sigmoid"}, "only 'gaussian' is supported"),
        ({"use_m_share_rad": True}, "use_m_share_rad is True"),
        ({"num_layer": 2}, "Did you mean 'num_layers'"),
        ({"use_atom_edge_embedding": False, "share_atom_edge_embedding": True}, "needs use_atom_edge_embedding"),
        ({"num_layers": 1}, r"'blocks\.1\..*has no place"),
        ({"num_layers": 3}, r"lacks: blocks\.2\."),
        ({"use_gate_act": False}, "needs"),
    ],
)
def test_from_reference_says_what_does_not_fit(changes, message):
    parameters, given = reference()
    with pytest.raises(CheckpointError, match=message):
        EquiformerV2.from_reference(parameters, **(given | changes))


def test_the_published_network_knows_its_elements():
    parameters, given = reference()
    model = EquiformerV2.from_reference(parameters, **given)
    assert model.elements == tuple(range(1, 20))
    data = random_batch()
    data.z[0] = 20
    data.edge_index = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(InputError, match="is not known"):
        model(data)
