"""FAENet: what it keeps and what not, what the norms do to a batch, tags, periodic images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from e3nn import o3
from safetensors.torch import load_file
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GraphNorm

from geoeq.errors import InputError, TensorError
from geoeq.layers.faenet import Message
from geoeq.layers.inputs.periodic_table import NO_GROUP, AtomEmbedding, group_of, period_of
from geoeq.models import EGNN, DecodedVector, EveryLayerScalar, FAENet, GraphScalar, Model, NodeScalar, from_config
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch

CASE = Path(__file__).parents[2] / "golden" / "faenet" / "updown_base.safetensors"


def reference():
    """The authors' parameters, inputs and hyperparameters."""
    tensors = load_file(CASE)
    parts = [{k.partition(".")[2]: v for k, v in tensors.items() if k.startswith(p)} for p in ("param", "input")]
    return *parts, json.loads(CASE.with_suffix(".json").read_text())["hyperparameters"]


def network(heads=None, **changes):
    torch.manual_seed(0)
    sizes = {"width": 8, "filters": 8, "layers": 2, "num_basis": 8, "cutoff": 4.0, "table_width": 2}
    heads = [EveryLayerScalar("energy"), DecodedVector("forces")] if heads is None else heads
    model = FAENet(heads, **(sizes | changes)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return model


def alone_and_together(model):
    """Energies of graphs one by one and in their batch, [2, G]."""
    data = random_batch((5, 9, 4))
    with torch.no_grad():
        alone = [model(Batch.from_data_list([graph]))["energy"] for graph in data.to_data_list()]
        return torch.stack([torch.cat(alone), model(data)["energy"]])


# What the symmetries are.


@pytest.mark.parametrize("norm", ["graph", "layer", "none"])
@pytest.mark.parametrize("periodic", [False, True])
def test_it_keeps_translations_permutations_and_batches(norm, periodic):
    assert_equivariant(network(norm=norm, tag_width=2), random_batch(periodic=periodic))


@pytest.mark.parametrize("message", get_args(Message))
def test_every_message_falls_to_zero_at_the_cutoff(message):
    """Second derivatives too: an atom at the cutoff is felt with the cube of its distance from there."""
    model, data = network(message=message, norm="none"), random_batch((2,))
    energies = []
    for beyond in (-2e-2, -1e-2, 1e-2):
        data.pos = torch.tensor([[0.0, 0, 0], [4.0 + beyond, 0, 0]], dtype=torch.float64)
        energies.append(model(data)["energy"])
    near, nearer = energies[0] - energies[2], energies[1] - energies[2]
    assert near.abs() > 0
    torch.testing.assert_close(near / nearer, torch.full_like(near, 8), rtol=0.1, atol=0)


def test_it_does_not_keep_rotations_and_says_so():
    errors = equivariance_errors(network(), symmetries=("rotation", "reflection"))
    assert min(errors.values()) > 1e-2
    assert FAENet.group == "T(3)"
    model = network()
    model.group = "E(3)"
    with pytest.raises(AssertionError, match="rotation of 'energy'"):
        assert_equivariant(model)


def test_a_head_that_does_not_turn_is_refused_by_a_model_that_does():
    with pytest.raises(InputError, match="outputs of DecodedVector do not rotate with the input, as those of EGNN"):
        EGNN([DecodedVector("forces")], width=8)


@pytest.mark.parametrize("norm", ["graph", "layer", "none", "batch"])
def test_isolated_atoms_are_legal_with_every_norm(norm):
    data = random_batch((1, 1))
    data.pos.requires_grad_()
    outputs = network(norm=norm)(data)
    (gradient,) = torch.autograd.grad(outputs["energy"].sum() + outputs["forces"].sum(), data.pos)
    assert all(value.isfinite().all() for value in outputs.values())
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_forces_are_exact_derivatives():
    model, data = network(), random_batch((5, 3))
    data.pos.requires_grad_()
    (gradient,) = torch.autograd.grad(model(data)["energy"].sum(), data.pos)
    step, ends = 1e-5 * torch.randn_like(data.pos), []
    for sign in (1, -1):
        moved = data.clone()
        moved.pos = data.pos.detach() + sign * step
        ends.append(model(moved)["energy"].sum().detach())
    torch.testing.assert_close((gradient * step).sum(), (ends[0] - ends[1]) / 2, rtol=1e-6, atol=0)


# Norms and batches.


def test_the_published_norm_lets_graphs_of_a_batch_feel_each_other():
    alone, together = alone_and_together(network(norm="batch"))
    assert ((together - alone) / alone).abs().max() > 1e-2
    for norm in ("graph", "layer", "none"):
        torch.testing.assert_close(*alone_and_together(network(norm=norm)), rtol=1e-12, atol=1e-12)
    with pytest.raises(AssertionError, match="batch of 'energy'"):
        assert_equivariant(network(norm="batch"))


def test_the_authors_network_changes_its_mind_with_the_batch():
    parameters, inputs, hyperparameters = reference()
    model = FAENet.from_reference(parameters, **hyperparameters)
    first = inputs["batch"] == 0
    edges = inputs["edge_index"][:, first[inputs["edge_index"][0]]]
    alone = Data(z=inputs["z"][first], pos=inputs["pos"][first], edge_index=edges)
    with torch.no_grad():
        energies = [model(data)["energy"][0] for data in (alone, Data(**inputs))]
    assert ((energies[1] - energies[0]) / energies[1]).abs() > 0.5


def test_norms_are_those_of_pyg():
    model, data = network(norm="batch"), random_batch((5, 9, 4))
    norm = model.layers[0].graph_norm
    theirs = GraphNorm(8).double()
    theirs.load_state_dict({"weight": norm.norm.scale, "bias": norm.norm.bias, "mean_scale": norm.shift})
    x = torch.randn(data.num_nodes, 8, dtype=torch.float64)
    graph = type("Nodes", (), {"batch": data.batch, "num_graphs": data.num_graphs})
    torch.testing.assert_close(norm(x, graph), theirs(x, data.batch))


def test_a_published_decoder_in_training_sees_the_batch_and_ours_does_not():
    for norm, same in (("layer", True), ("none", True), ("batch", False)):
        model = network([DecodedVector("forces", norm=norm)], norm="layer").train()
        data = random_batch((5, 9))
        alone = model(Batch.from_data_list([data[0]]))["forces"]
        assert torch.allclose(model(data)["forces"][:5], alone, rtol=1e-9, atol=1e-12) == same


# Inputs.


def test_tags_change_the_output_and_are_needed():
    model, data = network(tag_width=2), random_batch((5,))
    before = model(data)["energy"]
    data.tags = (data.tags + 1) % 3
    assert (model(data)["energy"] - before).abs() > 1e-3
    assert torch.equal(model(data)["energy"], model(data.clone().update({"tags": data.tags.double()}))["energy"])
    data.tags[3] = 4
    with pytest.raises(InputError, match=r"has the value 4; a tag is 0 .* 2 of the adsorbate"):
        model(data)
    data.tags = data.tags[:3]
    with pytest.raises(TensorError, match=r"data\.tags has shape \[3\]; it must be \[5\]"):
        model(data)
    del data.tags
    with pytest.raises(InputError, match="property_width is 2, but there are no properties"):
        FAENet([GraphScalar("energy")], width=8, property_width=2, cutoff=4.0)
    with pytest.raises(TensorError, match=r"needs data\.tags, which is missing.*tag_width=0"):
        model(data)


def test_without_tag_width_tags_are_nothing():
    model, data = network(), random_batch((5,))
    before = model(data)["energy"]
    del data.tags
    assert torch.equal(model(data)["energy"], before)


def test_elements_are_needed():
    data = random_batch((5,))
    del data.z
    with pytest.raises(TensorError, match=r"needs data\.z"):
        network()(data)


@pytest.mark.parametrize("norm", ["graph", "layer"])
def test_a_cell_twice_over_has_twice_the_energy(norm):
    model = network(norm=norm, tag_width=2)
    data = random_batch((5,), periodic=True)
    cell = data.cell[0]
    double = Data(
        z=data.z.repeat(2),
        tags=data.tags.repeat(2),
        pos=torch.cat([data.pos, data.pos + cell[1]]),
        cell=(cell * torch.tensor([[1], [2], [1]])).unsqueeze(0),
        pbc=data.pbc,
    )
    once, twice = model(data), model(double)
    torch.testing.assert_close(twice["energy"], 2 * once["energy"], rtol=1e-10, atol=0)
    torch.testing.assert_close(twice["forces"], once["forces"].repeat(2, 1), rtol=1e-10, atol=1e-12)


def test_groups_and_periods_are_those_of_the_authors():
    parameters, *_ = reference()
    numbers = range(1, len(parameters["embed_block.phys_emb.group"]))
    assert [group_of(z) for z in numbers] == parameters["embed_block.phys_emb.group"][1:].tolist()
    assert [period_of(z) for z in numbers] == parameters["embed_block.phys_emb.period"][1:].tolist()
    places = [(period_of(z), group_of(z)) for z in range(1, 119)]
    assert places[103:] == [(7, group) for group in range(4, 19)]
    assert len({place for place in places if place[1] != NO_GROUP}) == 118 - 28


def test_properties_of_elements_are_read():
    table = [[0.1 * z, -0.2 * z] for z in range(119)]
    for property_width in (0, 3):
        model = network(properties=table, property_width=property_width)
        again = from_config(json.loads(json.dumps(model.config())), Model).double()
        again.load_state_dict(model.state_dict())
        data = random_batch()
        assert torch.equal(again(data)["energy"], model(data)["energy"])
        other = network(properties=[[2 * a, b] for a, b in table], property_width=property_width)
        other.load_state_dict(model.state_dict())
        assert (other(data)["energy"] - model(data)["energy"]).abs().min() > 1e-4


def test_compiles_with_tags_and_the_whole_batch():
    model, data = network(tag_width=2, norm="batch", cutoff=None, basis_cutoff=4.0), random_batch()
    torch.compiler.reset()  # of Model.forward only so many networks are kept
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for key, value in compiled(data).items():
        torch.testing.assert_close(value, model(data)[key])


@pytest.mark.parametrize("skip", ["layers", "merged", "none"])
def test_any_head_does(skip):
    model = network([GraphScalar("energy"), NodeScalar("charges"), EveryLayerScalar("gap")], skip=skip)
    assert_equivariant(model)


def test_arguments_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="needs basis_cutoff"):
        network(cutoff=None)
    for name, wrong, right in (("message", "bass", "base"), ("norm", "grap", "graph"), ("skip", "layer", "layers")):
        with pytest.raises(InputError, match=f"Did you mean '{right}'"):
            network(**{name: wrong})
    with pytest.raises(InputError, match="as many edge attributes as channels"):
        network(message="simple", filters=4)
    with pytest.raises(InputError, match=r"Of width 8, tags \(4\).* leave 0 channels"):
        network(tag_width=4)
    with pytest.raises(InputError, match="a row for each of the 119"):
        AtomEmbedding(8, properties=[[1.0]])
    for head, name in (
        (lambda: EveryLayerScalar("energy", combine="liner"), "linear"),
        (lambda: EveryLayerScalar("energy", weights="finl"), "final"),
        (lambda: DecodedVector("forces", kind="rse"), "res"),
        (lambda: DecodedVector("forces", norm="batsh"), "batch"),
    ):
        with pytest.raises(InputError, match=f"Did you mean '{name}'"):
            head()
    for kind in (EveryLayerScalar("energy"), DecodedVector("forces")):
        with pytest.raises(InputError, match=r"needs (the same number of )?scalars.* 8x0e\+1x1o"):
            kind.bind(o3.Irreps("8x0e + 1x1o"))
