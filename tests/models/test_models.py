"""What every network must do. A new one in ``geoeq.models.NETWORKS`` or ``COORDINATE_NETWORKS`` is tried by itself."""

from __future__ import annotations

import copy
import inspect
import json

import pytest
import torch
from safetensors.torch import load, save
from torch_geometric.data import Batch, Data

import geoeq.models
from geoeq.errors import CellError, CoincidentAtomsError, InputError, NonFiniteError, TensorError
from geoeq.graph import build_graph
from geoeq.models import Model, from_config
from geoeq.symmetry import assert_equivariant, random_batch

DTYPES = [torch.float64, torch.float32]


EVERY = (*geoeq.models.NETWORKS, *geoeq.models.COORDINATE_NETWORKS)

#: Each network with the structures that it takes: those of coordinates refuse periodic ones.
PLACES = [(name, False) for name in EVERY] + [(name, True) for name in geoeq.models.NETWORKS]

#: Compiled in five seconds or more.
LONG = ("ESCN", "EquiformerV2", "FAGNN", "IterativeSE3Transformer")


@pytest.fixture(params=EVERY)
def name(request):
    return request.param


def example(name, dtype=torch.float64):
    torch.manual_seed(0)
    model = getattr(geoeq.models, name).example().to(dtype)
    for parameter in model.parameters():  # so that no branch starts switched off
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def total(outputs):
    return sum((value * torch.linspace(0.5, 1, value.numel()).reshape(value.shape)).sum() for value in outputs.values())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "periodic"), PLACES)
def test_is_equivariant_and_batch_is_one_by_one(name, periodic, dtype):
    assert_equivariant(example(name, dtype), random_batch(periodic=periodic, dtype=dtype))


@pytest.mark.parametrize("name", geoeq.models.COORDINATE_NETWORKS)
def test_networks_of_coordinates_refuse_periodic_structures(name):
    """Their energies depended on which image of an atom was listed."""
    model, data = example(name), random_batch((4, 3), periodic=True)
    data.pbc[0] = False
    with pytest.raises(CellError, match=r"Graph 1 is periodic.*edge vectors, such as FAENet"):
        model(data)


@pytest.mark.parametrize("name", geoeq.models.NETWORKS)
def test_any_periodic_image_of_an_atom_may_be_listed(name):
    model, data = example(name), random_batch((4, 3), periodic=True)
    moved = data.clone()
    moved.pos[2] += 2 * data.cell[0, 0] - data.cell[0, 1]
    moved.pos[5] -= data.cell[1, 2]
    for key, value in model(moved).items():
        expected = model(data)[key]
        shift = moved.pos - data.pos if key == "positions" else 0.0
        torch.testing.assert_close(value - shift, expected, rtol=1e-10, atol=1e-10)


def test_outputs_are_those_it_names(name):
    model, data = example(name), random_batch()
    outputs = model(data)
    assert set(outputs) == set(model.fields)
    for key, value in outputs.items():
        count = data.num_graphs if model.fields[key].level == "graph" else data.num_nodes
        assert value.shape[0] == count
        assert value.dtype == torch.float64


def test_derivatives_are_finite_differences(name):
    model = example(name)
    data = random_batch((4, 1))
    pos = data.pos.clone().requires_grad_()

    def run(pos):
        moved = data.clone()
        moved.pos = pos
        return total(model(moved))

    assert torch.autograd.gradcheck(run, (pos,))
    assert torch.autograd.gradgradcheck(run, (pos,))


@pytest.mark.parametrize(("name", "periodic"), PLACES)
def test_isolated_atoms_are_legal(name, periodic):
    model = example(name)
    data = random_batch((1, 1), periodic=periodic)
    if periodic:
        data.cell = data.cell * 3
    data.pos.requires_grad_()
    outputs = model(data)
    (gradient,) = torch.autograd.grad(total(outputs), data.pos)
    assert all(value.isfinite().all() for value in outputs.values())
    assert gradient.isfinite().all()


def test_config_and_weights_make_it_again(name):
    model, data = example(name), random_batch()
    data.energy = torch.randn(data.num_graphs, dtype=torch.float64)
    for head in model.heads:
        if all(key in data for key in head.names):
            head.fit(data)
    config = json.loads(json.dumps(model.config()))
    again = from_config(config, Model).double()
    again.load_state_dict(load(save({key: value.contiguous() for key, value in model.state_dict().items()})))
    assert again.config() == model.config()
    for (key, value), other in zip(model(data).items(), again(data).values(), strict=True):
        assert torch.equal(value, other), key


def test_presets_are_arguments(name):
    network = getattr(geoeq.models, name)
    known = inspect.signature(network).parameters
    for preset in network.PRESETS.values():
        assert set(preset) <= set(known)
    with pytest.raises(InputError, match="preset"):
        network.preset("nothing", [])


def test_is_built_without_memory(name):
    """On the meta device; the constants that this makes do not come back in the next model."""
    network = getattr(geoeq.models, name)
    with torch.device("meta"):
        sizes = {key: value.shape for key, value in network.example().state_dict().items()}
    model = example(name)
    assert {key: value.shape for key, value in model.state_dict().items()} == sizes
    assert total(model(random_batch())).isfinite()


def test_a_copy_is_independent(name):
    model, data = example(name), random_batch()
    twin = copy.deepcopy(model)
    before = total(model(data))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(total(model(data)), before)
    assert twin.config() == model.config()


def test_single_data_is_a_batch_of_one(name):
    model = example(name)
    data = random_batch((5,))
    single = Data(**{key: data[key] for key in data.keys() if key not in ("batch", "ptr")})  # noqa: SIM118
    for key, value in model(single).items():
        torch.testing.assert_close(value, model(data)[key])


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in EVERY])
def test_compiles_whole_with_given_edges(name):
    model, data = example(name), random_batch()
    graph = build_graph(data, model.cutoff)
    data.edge_index = torch.stack([graph.sender, graph.receiver])
    data.edge_cutoff = torch.full((data.num_graphs,), model.cutoff or 0.0)
    torch.compiler.reset()  # of Model.forward only so many networks are kept
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(total(compiled(data)), total(model(data)))


def test_bad_input_is_refused(name):
    model = example(name)
    with pytest.raises(TensorError, match=r"float32.*float64"):
        model(random_batch(dtype=torch.float32))
    data = random_batch()
    data.pos[7, 1] = float("nan")
    with pytest.raises(NonFiniteError, match="Graph 2, atom 1"):
        model(data)
    data = random_batch()
    data.pos[8] = data.pos[7]
    with pytest.raises(CoincidentAtomsError, match="Graph 2, atom 1"):
        model(data)


def test_mixed_precision_is_close(name):
    """Under autocast values are those of float32 to a few digits, and derivatives are there."""
    torch.manual_seed(0)
    model, data = getattr(geoeq.models, name).example(), random_batch(dtype=torch.float32)
    data.pos.requires_grad_()
    expected = model(data)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(data)
    gradients = torch.autograd.grad(total(found), [data.pos, *model.parameters()], allow_unused=True)
    for key, value in found.items():
        assert value.dtype == expected[key].dtype != torch.bfloat16
        assert (value - expected[key]).abs().max() < 0.1 * expected[key].abs().max()
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


def test_learns_an_invariant(name):
    """Thirty steps of Adam halve the error of a small fit: the whole path has gradients."""
    torch.manual_seed(0)
    model = getattr(geoeq.models, name).example()
    data = Batch.from_data_list([random_batch((6,), seed=seed, dtype=torch.float32)[0] for seed in range(8)])
    target = torch.randn(8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (next(iter(model(data).values())) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
