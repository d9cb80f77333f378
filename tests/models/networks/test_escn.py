"""eSCN: its error falls with the grids, its forces are exact, and every option of the published code is known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from e3nn import o3
from safetensors.torch import load_file
from torch_geometric.data import Data

from geoeq.errors import CheckpointError, InputError
from geoeq.layers import escn
from geoeq.models import ESCN, GraphScalar, Model, SampledScalar, SampledVector, from_config
from geoeq.parity import SHIPPED
from geoeq.symmetry import equivariance_errors, random_batch

CASE = SHIPPED / "escn" / "l3m1.safetensors"


def network(**changes):
    torch.manual_seed(0)
    sizes = {"lmax": 2, "mmax": 1, "channels": 8, "hidden_channels": 8, "edge_channels": 8, "layers": 2, "num_basis": 8}
    degree = changes.pop("degree", 36)
    heads = [SampledScalar("energy", degree=degree), SampledVector("forces", degree=degree)]
    return ESCN(heads, **(sizes | {"cutoff": 4.0, "resolution": 14} | changes)).double()


def rotation_error(model):
    errors = equivariance_errors(model, random_batch(dtype=torch.float64), symmetries=("rotation",))
    return max(errors.values())


@pytest.fixture
def case():
    """Parameters, inputs, outputs and hyperparameters of the authors' network."""
    tensors = load_file(CASE)
    parts = [
        {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(p)} for p in ("param", "input", "output")
    ]
    return *parts, json.loads(CASE.with_suffix(".json").read_text())["hyperparameters"]


def test_the_error_falls_with_the_resolution_of_the_grids():
    errors = [rotation_error(network(resolution=resolution)) for resolution in (None, 10, 18, 30)]
    assert errors[0] > 1e-3  # the smallest grid, as published
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 4
    assert errors[3] < errors[2] / 4
    assert errors[3] < 1e-4


def test_the_error_falls_with_the_degree_of_the_heads():
    errors = [rotation_error(network(resolution=30, degree=degree)) for degree in (4, 12, 36)]
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 10


def forces(model, data):
    data = data.clone()
    data.pos.requires_grad_()
    energy = model(data)["energy"].sum()
    return energy.detach(), -torch.autograd.grad(energy, data.pos)[0]


def test_forces_are_exact_and_detached_frames_make_them_wrong():
    data = random_batch((5,), dtype=torch.float64)
    exact, detached = network(), network(detach_frames=True)
    energy, right = forces(exact, data)
    same, wrong = forces(detached, data)
    assert energy == same
    step = 1e-5 * torch.randn_like(data.pos)
    ends = []
    for sign in (1, -1):
        moved = data.clone()
        moved.pos = data.pos + sign * step
        ends.append(forces(exact, moved)[0])
    work = (ends[1] - ends[0]) / 2
    torch.testing.assert_close((right * step).sum(), work, rtol=1e-6, atol=0)
    assert (wrong - right).abs().max() > 1e-3 * right.abs().max()


def test_edges_some_at_a_time_give_the_same_forces_and_second_derivatives(monkeypatch):
    data = random_batch((4, 3), dtype=torch.float64)

    def results():
        model, graphs = network(layers=1, resolution=6, degree=4), data.clone()
        graphs.pos.requires_grad_()
        energy = model(graphs)["energy"].sum()
        (gradient,) = torch.autograd.grad(energy, graphs.pos, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), graphs.pos)
        with torch.no_grad():
            return energy, gradient, second, model(data)["forces"]

    at_once = results()
    monkeypatch.setattr(escn, "CHUNK", 4)
    for found, expected in zip(results(), at_once, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_no_orders_but_zero_are_still_a_network():
    assert rotation_error(network(mmax=0, resolution=30)) < 1e-4
    assert rotation_error(network(lmax=0, mmax=0)) < 1e-12


def test_any_head_and_any_inputs_do():
    model = network(
        node_inputs=["speed", "charge"], velocity=True, edge_inputs=["charge_product", "bessel"], basis="sigmoid"
    )
    model = ESCN(**(model.arguments | {"heads": [GraphScalar("energy")]})).double()
    data = random_batch(dtype=torch.float64)
    data.charge = torch.randn(data.num_nodes, dtype=torch.float64)
    data.vel = torch.randn(data.num_nodes, 3, dtype=torch.float64)
    assert equivariance_errors(model, data, symmetries=("rotation",))["rotation", "energy"] < 1e-2
    del data.z
    assert model(data)["energy"].isfinite().all()


def test_arguments_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="needs basis_cutoff"):
        network(cutoff=None)
    with pytest.raises(InputError, match="Did you mean 'gaussian'"):
        network(basis="gausian")
    with pytest.raises(InputError, match=r"same number of channels of every degree.* 4x0e\+2x1o"):
        SampledScalar("energy").bind(o3.Irreps("4x0e + 2x1o"))


def test_reference_network_is_made_again_from_its_config(case):
    parameters, inputs, outputs, hyperparameters = case
    model = ESCN.from_reference(parameters, **hyperparameters)
    again = from_config(json.loads(json.dumps(model.config())), Model).double()
    again.load_state_dict(model.state_dict())
    found = again(Data(**inputs))
    for name, value in outputs.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-13)


def test_reference_network_without_forces(case):
    parameters, inputs, outputs, hyperparameters = case
    parameters = {key: value for key, value in parameters.items() if not key.startswith("force_block")}
    model = ESCN.from_reference(parameters, **(hyperparameters | {"regress_forces": False}))
    found = model(Data(**inputs))
    assert set(found) == {"energy"}
    torch.testing.assert_close(found["energy"], outputs["energy"], rtol=1e-10, atol=0)


@pytest.mark.parametrize(("name", "slope"), [("sigmoid", 0.0), ("linearsigmoid", 0.001)])
def test_reference_network_with_sigmoids_of_the_distance(case, name, slope):
    parameters, inputs, _, hyperparameters = case
    changes = {"distance_function": name, "basis_width_scalar": 2.0}
    model = ESCN.from_reference(parameters, **(hyperparameters | changes))
    lengths = torch.linspace(0.5, 6, 7, dtype=torch.float64)
    offset = parameters["distance_expansion.offset"]
    scaled = 2 / (offset[1] - offset[0]) * (lengths[:, None] - offset)
    torch.testing.assert_close(model.basis(lengths), scaled.sigmoid() + slope * scaled)
    assert model(Data(**inputs))["energy"].isfinite().all()


def test_reference_network_with_a_learned_basis(case):
    parameters, _, _, hyperparameters = case
    weight, bias = torch.randn(250, 2, dtype=torch.float64), torch.randn(250, dtype=torch.float64)
    parameters = {key: value for key, value in parameters.items() if not key.endswith(".offset")}
    for prefix in ("", "layer_blocks.0.message_block.edge_block."):
        parameters[f"{prefix}distance_expansion.fc1.weight"] = weight
        parameters[f"{prefix}distance_expansion.fc1.bias"] = bias
    model = ESCN.from_reference(parameters, **(hyperparameters | {"distance_function": "silu"}))
    lengths = torch.linspace(0.5, 6, 7, dtype=torch.float64)
    inputs = torch.stack([lengths, torch.ones_like(lengths)], dim=-1)
    torch.testing.assert_close(model.basis(lengths), torch.nn.functional.silu(inputs @ weight.T + bias))


def test_what_is_not_of_this_network_is_refused(case):
    parameters, _, _, hyperparameters = case
    with pytest.raises(CheckpointError, match=r"lmax_list is \[4, 2\]; only networks of one resolution"):
        ESCN.from_reference(parameters, **(hyperparameters | {"lmax_list": [4, 2]}))
    with pytest.raises(CheckpointError, match="Did you mean 'gaussian'"):
        ESCN.from_reference(parameters, **(hyperparameters | {"distance_function": "gauss"}))
    with pytest.raises(CheckpointError, match="max_num_elements is 130"):
        ESCN.from_reference(parameters, **(hyperparameters | {"max_num_elements": 130}))
    with pytest.raises(CheckpointError, match=r"'sphere_embedding\.weight' has shape \[20, 8\].* needs \[30, 8\]"):
        ESCN.from_reference(parameters, **(hyperparameters | {"max_num_elements": 30}))
    with pytest.raises(CheckpointError, match=r"lacks: layer_blocks\.1"):
        ESCN.from_reference(parameters, **(hyperparameters | {"num_layers": 2}))
    with pytest.raises(CheckpointError, match=r"'extra\.weight' has no place in this ESCN"):
        ESCN.from_reference(parameters | {"extra.weight": torch.zeros(1)}, **hyperparameters)


def test_energy_head_is_the_mean_over_directions():
    """For a network that is nearly linear, the mean over directions is the network of the l = 0 part alone."""
    head = SampledScalar("energy")
    head.bind(o3.Irreps("1x0e + 1x1o + 1x2e"))
    head = head.double()
    network = head.network[0]
    x = 1e-4 * torch.randn(5, 9, dtype=torch.float64)
    scalars = torch.cat([x[:, :1], torch.zeros(5, 8, dtype=torch.float64)], dim=-1)
    torch.testing.assert_close(network(x) - network(0 * x), network(scalars) - network(0 * x), rtol=1e-2, atol=1e-9)
    assert math.isclose(float(network.weights.sum()), 1, rel_tol=1e-12)
