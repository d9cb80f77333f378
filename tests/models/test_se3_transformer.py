"""What is particular to the SE(3)-Transformers: the published layouts, exact forces, moving positions."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from e3nn import o3
from safetensors.torch import load_file
from torch_geometric.data import Batch, Data

from geoeq.errors import CheckpointError, InputError, TensorError
from geoeq.graph import build_graph, displace
from geoeq.layers import SE3Attention, SE3Block, SE3Convolution, SE3Norm
from geoeq.layers.edge_basis import EdgeBasis
from geoeq.models import GraphScalar, IterativeSE3Transformer, NodeVector, Positions, SE3Transformer
from geoeq.symmetry import assert_equivariant, random_batch

GOLDEN = Path(__file__).parent.parent / "golden" / "se3_transformer"
HIDDEN = 5


def published(name):
    """Parameters, hyperparameters and inputs of a published case, in float64."""
    tensors = {
        key: v.double() if v.is_floating_point() else v for key, v in load_file(GOLDEN / f"{name}.safetensors").items()
    }
    hyperparameters = json.loads((GOLDEN / f"{name}.json").read_text())["hyperparameters"]
    parameters = {key[6:]: value for key, value in tensors.items() if key.startswith("param.")}
    inputs = {key[6:]: value for key, value in tensors.items() if key.startswith("input.")}
    inputs["x"] = inputs["x"].flatten(1)
    if "edge_attr" in inputs:
        inputs["edge_attr"] = inputs["edge_attr"].flatten(1)
    return parameters, hyperparameters, Data(**inputs)


def encode(model, data):
    return model.encode(data, build_graph(data, model.cutoff, model.lmax))


# The published convolution, from its own parameters: a kernel for every edge.


def pairwise_basis(vectors, degree_in, degree_out):
    """[E, 2 l + 1, paths, 2 k + 1]."""
    low, high = abs(degree_in - degree_out), degree_in + degree_out
    parts = []
    for degree in range(low, high + 1):
        harmonics = o3.spherical_harmonics(degree, vectors, normalize=True)  # "integral"
        coupling = o3.wigner_3j(degree, degree_in, degree_out, dtype=vectors.dtype)
        parts.append(torch.einsum("em,mlk->elk", harmonics, coupling))
    return torch.stack(parts, dim=2)


def radial(state, name, inputs):
    hidden = torch.relu(inputs @ state[f"{name}.net.0.weight"].T + state[f"{name}.net.0.bias"])
    hidden = torch.relu(hidden @ state[f"{name}.net.2.weight"].T + state[f"{name}.net.2.bias"])
    return hidden @ state[f"{name}.net.4.weight"].T


def published_convolution(state, sharing, fiber_in, fiber_out, x, pos, edge_index):
    """x: degree -> [N, C, 2 l + 1]. Every convolution is one that couples some degrees to some others."""
    sender, receiver = edge_index
    vectors = pos[receiver] - pos[sender]
    inputs = vectors.norm(dim=-1, keepdim=True)
    some = {
        "all": [("conv", [*fiber_in], [*fiber_out])],
        "output": [(f"conv_out.{k}", [*fiber_in], [k]) for k in fiber_out],
        "input": [(f"conv_in.{i}", [i], [*fiber_out]) for i in fiber_in],
        "none": [(f"conv.{i},{k}", [i], [k]) for i in fiber_in for k in fiber_out],
    }[sharing]
    result = dict.fromkeys(fiber_out, 0)
    for name, ins, outs in some:
        weights = radial(state, f"graph_modules.0.{name}.radial_func", inputs)
        paths = [(k, i) for k in outs for i in ins]
        counts = [2 * min(pair) + 1 for pair in paths]
        weights = weights.view(len(sender), fiber_out[outs[0]], fiber_in[ins[0]], sum(counts))
        for (k, i), weight in zip(paths, weights.split(counts, dim=-1), strict=True):
            basis = pairwise_basis(vectors, i, k)
            if sharing == "none" and k == i == 0:
                basis = torch.ones_like(basis)
            result[k] = result[k] + torch.einsum("eoif,eil,elfk->eok", weight, x[i][sender], basis)
    for degree in fiber_out:
        if degree in fiber_in:
            result[degree] = result[degree] + state[f"graph_modules.0.to_kernel_self.{degree}"] @ x[degree][receiver]
        result[degree] = torch.zeros(len(pos), *result[degree].shape[1:], dtype=pos.dtype).index_add(
            0, receiver, result[degree]
        )
    return result


@pytest.mark.parametrize(
    ("sharing", "fiber_in", "fiber_out"),
    [
        ("all", {0: 3, 1: 3, 2: 3}, {0: 2, 1: 2, 2: 2}),
        ("output", {0: 3, 1: 3}, {0: 2, 1: 4}),
        ("input", {0: 3, 1: 2}, {0: 4, 1: 4}),
        ("none", {0: 3, 1: 2}, {0: 2, 1: 4, 3: 1}),
        ("none", {1: 2}, {0: 3, 2: 2}),
    ],
)
def test_every_published_fusion_is_understood(sharing, fiber_in, fiber_out):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    irreps = [o3.Irreps([(c, (k, (-1) ** k)) for k, c in f.items()]) for f in (fiber_in, fiber_out)]
    model = SE3Convolution(*irreps, 0, distance=True, hidden=HIDDEN, sharing=sharing, activation="relu")
    names = [plan.degrees for plan in model.messages.plans]
    state = {}
    for (ins, outs), plan in zip(names, model.messages.plans, strict=True):
        name = {"all": "conv", "output": f"conv_out.{outs[0]}", "input": f"conv_in.{ins[0]}"}.get(
            sharing, f"conv.{ins[0]},{outs[0]}"
        )
        net = f"graph_modules.0.{name}.radial_func.net"
        state |= {f"{net}.0.weight": normal(HIDDEN, 1), f"{net}.0.bias": normal(HIDDEN)}
        state |= {f"{net}.2.weight": normal(HIDDEN, HIDDEN), f"{net}.2.bias": normal(HIDDEN)}
        state[f"{net}.4.weight"] = normal(plan.weight_numel // HIDDEN, HIDDEN)
    for degree in set(fiber_in) & set(fiber_out):
        state[f"graph_modules.0.to_kernel_self.{degree}"] = normal(fiber_out[degree], fiber_in[degree])

    found = SE3Transformer.from_reference(
        state,
        num_layers=0,
        num_channels=1,
        num_degrees=1,
        num_heads=1,
        channels_div=1,
        norm=False,
        use_layer_norm=False,
        fiber_in=fiber_in,
        fiber_out={str(degree): channels for degree, channels in fiber_out.items()},
    )
    pos, edge_index = normal(6, 3), torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 0, 0, 2, 3, 1, 4, 5]])
    x = {degree: normal(6, channels, 2 * degree + 1) for degree, channels in fiber_in.items()}
    data = Data(pos=pos, edge_index=edge_index, x=torch.cat([value.flatten(1) for value in x.values()], dim=1))
    expected = published_convolution(state, sharing, fiber_in, fiber_out, x, pos, edge_index)
    torch.testing.assert_close(encode(found, data), torch.cat([v.flatten(1) for v in expected.values()], dim=1))


@pytest.mark.parametrize("name", ["edges_l1", "norm_layernorm"])
def test_forces_of_the_published_network_are_exact(name):
    """The published code makes its harmonics without derivatives, which leaves another force."""
    parameters, hyperparameters, data = published(name)
    model = SE3Transformer.from_reference(parameters, **hyperparameters).requires_grad_(False)
    pos = data.pos.requires_grad_()
    direction = torch.randn(pos.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def energy(shift):
        moved = data.clone()
        moved.pos = pos + shift * direction
        return encode(model, moved)[:, 0].sum()

    (exact,) = torch.autograd.grad(energy(0.0), pos)
    difference = (energy(1e-6) - energy(-1e-6)) / 2e-6
    torch.testing.assert_close((exact * direction).sum(), difference, rtol=1e-5, atol=0)

    graph = build_graph(data, None, model.lmax)
    as_published = dataclasses.replace(graph, harmonics=graph.harmonics.detach())
    (wrong,) = torch.autograd.grad(model.encode(data, as_published)[:, 0].sum(), pos)
    assert (wrong - exact).norm() > 0.02 * exact.norm()


def test_state_dicts_that_do_not_fit_are_refused():
    parameters, hyperparameters, _ = published("norm_layernorm")
    key = "graph_modules.1.group_norm.weight"

    def refused(message, state=parameters, **changes):
        with pytest.raises(CheckpointError, match=message):
            SE3Transformer.from_reference(state, **(hyperparameters | changes))

    refused(f"lacks: {key}", {name: value for name, value in parameters.items() if name != key})
    refused("'extra.weight' has no place", parameters | {"extra.weight": torch.zeros(1)})
    refused(r"group_norm.weight' has shape \[3\]; this model needs \[12\]", parameters | {key: torch.zeros(3)})
    refused("Did you mean 'num_heads'", num_head=2)
    refused("pooling='avg' is not supported", pooling="avg")
    refused("edge_channels is a number", edge_channels={"0": 1, "1": 2})
    refused("lacks the convolution graph_modules.4.to_key_value", num_layers=3)


def test_high_degrees_are_equivariant_and_forces_are_differences():
    torch.manual_seed(0)
    heads = [GraphScalar("energy"), NodeVector("forces")]
    model = SE3Transformer(heads, 4, 2, 3, attention_heads=2, cutoff=4.0, hidden=8).double()
    assert model.lmax == 6
    data = random_batch((6, 2))
    assert_equivariant(model, data)
    pos = data.pos.clone().requires_grad_()

    def run(pos):
        moved = data.clone()
        moved.pos = pos
        return model(moved)["energy"].sum()

    assert torch.autograd.gradcheck(run, (pos,), fast_mode=True)


def test_features_of_any_degree_are_inputs():
    """A given tensor turns what is predicted; velocities enter as vectors."""
    torch.manual_seed(0)
    model = SE3Transformer(
        [NodeVector("forces")],
        4,
        1,
        2,
        attention_heads=2,
        cutoff=4.0,
        node_inputs=["element", "features"],
        features_irreps="2x0e + 1x2e",
        velocity=True,
    ).double()
    data = random_batch((5,))
    data.x = torch.randn(5, 7, dtype=torch.float64)
    data.x.requires_grad_()
    data.vel.requires_grad_()
    gradients = torch.autograd.grad(model(data)["forces"].square().sum(), [data.x, data.vel])
    assert all((gradient.abs().sum(0) > 0).all() for gradient in gradients)


def test_a_basis_serves_layers_of_any_width():
    """What is made once for a graph is what a layer would make for itself."""
    torch.manual_seed(0)
    wide = SE3Block("3x0e", "4x0e + 4x1o", "2x0e + 2x1o", 2, 4, heads=2, hidden=6, cutoff=4.0).double()
    graph = dataclasses.replace(build_graph(random_batch(), 4.0, 3))
    graph = dataclasses.replace(graph, edge_attr=graph.lengths.unsqueeze(-1).repeat(1, 4))
    x = torch.randn(graph.num_nodes, 3, dtype=torch.float64)
    alone = x
    for layer, norm in zip(wide.layers, wide.norms, strict=True):
        alone = norm(layer(alone, graph))
    torch.testing.assert_close(wide(x, graph), wide.last(alone, graph))
    basis = EdgeBasis(graph, 4.0)
    plan = wide.layers[1].messages
    first = basis.couplings(plan.coupled[0], plan.constants_0)
    assert basis.couplings(plan.coupled[0], plan.constants_0) is first


def test_self_interaction_once_or_for_each_neighbour():
    torch.manual_seed(0)
    graph = dataclasses.replace(build_graph(random_batch((6, 1)), 4.0, 2))
    graph = dataclasses.replace(graph, edge_attr=graph.lengths.unsqueeze(-1))
    x = torch.randn(7, 3, dtype=torch.float64)
    once = SE3Convolution("3x0e", "2x0e", 1).double()
    each = SE3Convolution("3x0e", "2x0e", 1, self_per_edge=True).double()
    each.load_state_dict(once.state_dict())
    own = x @ once.own["0"].T
    torch.testing.assert_close(each(x, graph) - once(x, graph), own * (graph.degree - 1).unsqueeze(-1))
    assert not each(x, graph)[-1].any()


def test_the_published_nonlinearity_keeps_directions_and_sets_lengths():
    norm = SE3Norm("3x0e + 4x1o", "norm").double()
    x = torch.randn(5, 15, dtype=torch.float64)
    out = norm(x)
    vectors, new = x[:, 3:].view(5, 4, 3), out[:, 3:].view(5, 4, 3)
    lengths = torch.nn.functional.layer_norm(vectors.norm(dim=-1), (4,)).relu()
    torch.testing.assert_close(new, torch.nn.functional.normalize(vectors, dim=-1) * lengths.unsqueeze(-1))
    assert norm(torch.zeros(1, 15, dtype=torch.float64)).isfinite().all()


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="3 heads do not divide the 4 channels of values of degree 0"):
        SE3Attention("4x0e", "4x0e + 4x1o", 4, heads=3, channels_div=1)
    with pytest.raises(InputError, match="Queries need a degree that both 4x1o and 4x0e have"):
        SE3Attention("4x1o", "4x0e", 4, heads=1)
    with pytest.raises(InputError, match=r"each degree once.*4x1o\+4x1e"):
        SE3Convolution("4x1o+4x1e", "4x0e", 4)
    with pytest.raises(InputError, match="no input: give edge_width, or distance=True"):
        SE3Convolution("4x0e", "4x0e", 0)
    with pytest.raises(InputError, match="Did you mean 'output'"):
        SE3Convolution("4x0e", "4x0e", 4, sharing="outputs")
    with pytest.raises(InputError, match="2 layers and a convolution need 3 sharings, not 2"):
        SE3Block("4x0e", "4x0e", "4x0e", 2, 4, heads=1, sharing=["all", "all"])
    with pytest.raises(InputError, match="not blocks=0, lmax=2"):
        IterativeSE3Transformer([Positions()], blocks=0)
    layer = SE3Convolution("4x1o", "4x2e", 4).double()
    x = torch.zeros(5, 12, dtype=torch.float64)
    graph = build_graph(random_batch((5,)), 4.0, 2)
    with pytest.raises(TensorError, match="4 edge attributes are needed, the graph has none"):
        layer(x, graph)
    with pytest.raises(InputError, match="lmax=2; lmax=3 is needed"):
        layer(x, dataclasses.replace(graph, edge_attr=torch.zeros(len(graph.sender), 4, dtype=torch.float64)))
    with pytest.raises(TensorError, match="x needs 5 columns, it has 3"):
        encode(
            SE3Transformer([], features_irreps="5x0e", embed=False), Data(pos=torch.zeros(1, 3), x=torch.zeros(1, 3))
        )


# The iterative network.


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
    assert not math.isclose(float((found.vectors - graph.vectors).abs().max()), 0)
