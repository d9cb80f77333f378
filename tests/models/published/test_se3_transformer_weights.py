"""NVIDIA's SE(3)-Transformer from its own parameters: every way of fusing its convolutions, exact forces, errors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from e3nn import o3
from safetensors.torch import load_file
from torch_geometric.data import Data

from geoeq.errors import CheckpointError
from geoeq.graph import build_graph
from geoeq.layers import SE3Convolution
from geoeq.models import SE3Transformer
from geoeq.parity import shipped_cases

GOLDEN = Path(__file__).parents[2] / "golden" / "se3_transformer"
CASES = {path.stem: path for path in (*shipped_cases("se3_transformer"), *GOLDEN.glob("*.safetensors"))}
HIDDEN = 5


def published(name):
    """Parameters, hyperparameters and inputs of a published case, in float64."""
    tensors = {key: v.double() if v.is_floating_point() else v for key, v in load_file(CASES[name]).items()}
    hyperparameters = json.loads(CASES[name].with_suffix(".json").read_text())["hyperparameters"]
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
