"""PONITA: its error falls with the number of orientations, all else is exact, and vectors turn."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch_geometric.data import Data

from geoeq.errors import CheckpointError, InputError
from geoeq.geometry.rotations import random_rotations
from geoeq.graph import build_graph
from geoeq.layers.sphere.sphere_points import spread_points
from geoeq.models import PONITA, GraphScalar, Model, NodeVector, Positions, from_config
from geoeq.parity import shipped_cases
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch

GOLDEN = Path(__file__).parents[2] / "golden" / "ponita"
CASES = {path.stem: path for path in (*shipped_cases("ponita"), *GOLDEN.glob("*.safetensors"))}


def network(heads=None, std=0.3, **changes):
    torch.manual_seed(0)
    sizes = {"channels": 8, "layers": 2, "num_orientations": 12, "basis_width": 8, "widening": 2, "cutoff": 4.0}
    heads = [GraphScalar("energy"), NodeVector("forces")] if heads is None else heads
    model = PONITA(heads, **(sizes | changes)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def errors(model, *symmetries, data=None):
    return equivariance_errors(model, data or random_batch(), symmetries=symmetries, samples=4)


@pytest.fixture(params=["ori8", "no_orientation"])
def case(request):
    """Parameters, inputs, outputs and hyperparameters of the authors' network."""
    path = CASES[request.param]
    tensors = load_file(path)
    parts = [
        {k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(p)} for p in ("param", "input", "output")
    ]
    return *parts, json.loads(path.with_suffix(".json").read_text())["hyperparameters"]


def test_the_error_falls_with_the_number_of_orientations():
    found = [max(errors(network(num_orientations=count), "rotation").values()) for count in (8, 20, 50, 100)]
    assert found[0] > 0.03
    for few, more in pairwise(found):
        assert more < few / 2
    assert found[-1] < 1e-3


@pytest.mark.parametrize("invariants", ["length", "perpendicular"])
@pytest.mark.parametrize("count", [12, 20, 32, 64])
def test_it_is_as_symmetric_as_it_says(count, invariants):
    model = network(num_orientations=count, invariants=invariants)
    assert max(errors(model, "rotation", "reflection").values()) < model.equivariance_error


@pytest.mark.parametrize("periodic", [False, True])
def test_translations_permutations_and_batches_are_exact(periodic):
    model, data = network(), random_batch(periodic=periodic)
    assert max(errors(model, "translation", "permutation", "batch", data=data).values()) < 1e-10


def test_without_orientations_rotations_are_exact():
    model = network([GraphScalar("energy")], num_orientations=0)
    assert model.equivariance_error == 0
    assert_equivariant(model)


def turned_grid(model, rotation):
    model.points = model.points @ rotation.T
    return model


@pytest.mark.parametrize("orientations", ["fixed", "random"])
def test_symmetry_is_exact_where_the_orientations_turn_too(orientations):
    """Also of velocities, and of given vectors and edges."""
    arguments = {"node_inputs": ["element", "features"], "features_irreps": "1x0e + 1x1o", "velocity": True}
    model = network(orientations=orientations, edge_inputs=["charge_product", "bessel"], **arguments)
    data = random_batch()
    expected = model(data)
    rotation = random_rotations(1, dtype=torch.float64)[0]
    turned = data.clone()
    turned.pos, turned.vel = data.pos @ rotation.T, data.vel @ rotation.T
    turned.x = torch.cat([data.x[:, :1], data.x[:, 1:] @ rotation.T], dim=-1)
    assert (model(turned)["energy"] - expected["energy"]).abs().max() > 1e-6
    found = turned_grid(model, rotation)(turned)
    torch.testing.assert_close(found["energy"], expected["energy"], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found["forces"], expected["forces"] @ rotation.T, rtol=1e-10, atol=1e-10)


def test_random_orientations_are_those_of_a_turned_grid():
    """A pass in training is one of the network with a turned grid; each pass and each graph has its own."""
    heads = [GraphScalar("energy"), NodeVector("forces")]
    model, data = network(heads, orientations="random", velocity=True), random_batch((5,))
    fixed = model(data)
    model.train()
    torch.manual_seed(1)
    first, second = model(data), model(data)
    assert (first["forces"] - second["forces"]).abs().max() > 1e-6
    assert (first["forces"] - fixed["forces"]).abs().max() > 1e-6
    torch.manual_seed(1)
    rotation = random_rotations(1, dtype=torch.float64)[0]
    expected = turned_grid(model.eval(), rotation.T)(data)
    for name in ("energy", "forces"):
        torch.testing.assert_close(first[name], expected[name], rtol=1e-10, atol=1e-12)
    twice = random_batch((5,))
    double = type(twice).from_data_list([*twice.to_data_list(), *twice.to_data_list()])
    energies = model.train()(double)["energy"]
    assert (energies[0] - energies[1]).abs() > 1e-9


def test_the_mean_of_random_orientations_is_more_symmetric():
    """Means over turns of the grid turn with the input better than one grid does."""
    model, data = network(orientations="random", num_orientations=6), random_batch((6,))
    rotation = random_rotations(1, torch.Generator().manual_seed(3), torch.float64)[0]
    turned = data.clone()
    turned.pos = data.pos @ rotation.T

    def miss(passes):
        with torch.no_grad():
            here, there = (
                torch.stack([model(graph)["forces"] for _ in range(passes)]).mean(0) for graph in (data, turned)
            )
        return float((there - here @ rotation.T).norm() / here.norm())

    one = miss(1)
    model.train()
    torch.manual_seed(0)
    assert miss(400) < one / 2


def test_velocities_move_positions():
    """One layer that adds nothing and reads out: the mean over orientations of ``(v·o) o`` is a third of the vector."""
    model = network([Positions()], velocity=True, layers=1, num_orientations=12)
    with torch.no_grad():
        model.layers[0].second.weight.zero_()
        model.layers[0].second.bias.zero_()
    data = random_batch()
    moved = model(data)["positions"] - data.pos
    factor = model.readouts["0"].weight[model.scalars] @ model.embedding.maps[0].weight[:, 0] / 3
    torch.testing.assert_close(moved, factor * data.vel, rtol=1e-6, atol=1e-6)


def test_forces_are_exact_also_of_the_published_invariants():
    model, data = network([GraphScalar("energy")], invariants="perpendicular"), random_batch((4, 1))

    def energy(pos):
        moved = data.clone()
        moved.pos = pos
        return model(moved)["energy"]

    assert torch.autograd.gradcheck(energy, (data.pos.requires_grad_(),))


def test_along_an_orientation_the_force_has_no_kink_but_with_the_published_invariants():
    step = 1e-7 * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    jumps = []
    for invariants in ("length", "perpendicular"):
        model = network([GraphScalar("energy")], invariants=invariants)
        direction = model.points[5]
        across = torch.linalg.cross(direction, step)
        forces = []
        for sign in (1, -1):
            pos = torch.stack([torch.zeros(3, dtype=torch.float64), 1.5 * direction + sign * across]).requires_grad_()
            (energy,) = model(Data(pos=pos, z=torch.tensor([6, 8])))["energy"]
            forces.append(torch.autograd.grad(energy, pos)[0])
        jumps.append(float((forces[0] - forces[1]).abs().max() / forces[0].abs().max()))
    assert jumps[0] < 1e-5
    assert jumps[1] > 1e-3


def test_arguments_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="Did you mean 'random'"):
        network(orientations="radom")
    with pytest.raises(InputError, match=r"num_orientations is 2; it must be 4 or more, or 0 for none"):
        network(num_orientations=2)
    with pytest.raises(InputError, match="has no vectors"):
        network(num_orientations=0, vectors=3)
    with pytest.raises(InputError, match="1x1o have no place"):
        network([GraphScalar("energy")], num_orientations=0, velocity=True)


def test_reference_network_is_made_again_from_its_config(case):
    parameters, inputs, _, hyperparameters = case
    model = PONITA.from_reference(parameters, **hyperparameters)
    again = from_config(json.loads(json.dumps(model.config())), Model).double()
    again.load_state_dict(model.state_dict())
    data = Data(**inputs)
    graph = build_graph(data, model.cutoff)
    assert torch.equal(again.encode(data, graph), model.encode(data, graph))


def test_reference_network_takes_the_grid_that_it_is_given(case):
    parameters, inputs, _, hyperparameters = case
    if not hyperparameters["num_ori"]:
        pytest.skip("has no grid")
    data, grid = Data(**inputs), spread_points(8) @ random_rotations(1, dtype=torch.float64)[0].T
    ours = PONITA.from_reference(parameters, **hyperparameters)
    theirs = PONITA.from_reference(parameters | {"ori_grid": grid}, **hyperparameters)
    assert torch.equal(ours.points, spread_points(8))
    assert torch.equal(theirs.points, grid)
    graph = build_graph(data, 5.0)
    assert (theirs.encode(data, graph) - ours.encode(data, graph)).abs().max() > 1e-5


def test_reference_network_that_reads_its_last_layer_alone(case):
    parameters, inputs, _, hyperparameters = case
    last = {key: value for key, value in parameters.items() if not key.startswith("read_out_layers.0")}
    model = PONITA.from_reference(last, **(hyperparameters | {"multiple_readouts": False}))
    data = Data(**inputs)
    assert model.encode(data, build_graph(data, 5.0)).isfinite().all()
    assert list(model.readouts) == ["1"]


def test_what_is_not_of_this_network_is_refused(case):
    parameters, _, _, hyperparameters = case
    with pytest.raises(CheckpointError, match="task_level is 'graph'; only 'node' is supported"):
        PONITA.from_reference(parameters, **(hyperparameters | {"task_level": "graph"}))
    with pytest.raises(CheckpointError, match="radius is None"):
        PONITA.from_reference(parameters, **(hyperparameters | {"radius": None}))
    with pytest.raises(CheckpointError, match=r"windowing_fn\.r_max is 5\.0, not 4\.0"):
        PONITA.from_reference(parameters, **(hyperparameters | {"radius": 4.0}))
    with pytest.raises(CheckpointError, match=r"'basis_fn\.1\.weight' has shape"):
        PONITA.from_reference(parameters, **(hyperparameters | {"degree": 3}))
    with pytest.raises(CheckpointError, match="Did you mean 'degree'"):
        PONITA.from_reference(parameters, **(hyperparameters | {"degre": 3}))
    with pytest.raises(CheckpointError, match=r"'extra\.weight' has no place in this PONITA"):
        PONITA.from_reference(parameters | {"extra.weight": torch.zeros(1)}, **hyperparameters)
