"""Potentials: forces and stress are derivatives of the energy, for every network, and Hessians of the forces."""

from __future__ import annotations

import copy

import pytest
import torch
from torch_geometric.data import Batch

import geoeq.models
from geoeq.errors import FieldError, InputError
from geoeq.geometry.random_structures import random_batch
from geoeq.models import EGNN, Forces, FrameAveraging, GraphScalar, NodeScalar, NodeVector, hessian
from geoeq.models import hessian_vector_product as product
from geoeq.symmetry import report


def network(name, dtype=torch.float64, **changes):
    """The example of a network with an energy alone."""
    cls = getattr(geoeq.models, name)
    arguments = cls.example().arguments | {"heads": [GraphScalar("energy")], "cutoff": 4.0} | changes
    torch.manual_seed(0)
    model = cls(**arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.to(dtype)


@pytest.fixture(params=geoeq.models.NETWORKS)
def name(request):
    return request.param


def test_every_family_is_a_potential(name):
    """Forces are finite differences of the energy, the stress those of a strain, per volume."""
    found = report(Forces(network(name), stress=True), checks=["forces", "stress", "rotation", "batch invariance"])
    tried = {result.name for result in found.results if result.status == "passed"}
    assert found.passed, found
    assert {"forces", "stress"} <= tried, found


def example(**changes):
    return Forces(network("EGNN", **changes), stress=True)


def test_outputs_are_those_it_names():
    model, data = example(), random_batch(periodic=True)
    outputs = model(data)
    assert set(outputs) == set(model.fields) == {"energy", "forces", "stress"}
    assert outputs["forces"].shape == (data.num_nodes, 3)
    assert outputs["stress"].shape == (data.num_graphs, 3, 3)
    assert torch.equal(outputs["stress"], outputs["stress"].mT)
    assert torch.equal(outputs["energy"], model.model(data)["energy"])


def test_only_what_has_a_volume_has_a_stress():
    model = example()
    assert set(model(random_batch())) == {"energy", "forces"}
    data = random_batch(periodic=True)
    data.pbc = torch.tensor([[True, True, False]] * data.num_graphs)
    assert "stress" in model(data)  # of a slab: per volume of its cell, vacuum included
    data.cell[:, 2] = 0
    assert "stress" not in model(data)
    data = random_batch(periodic=True)
    data.pbc[0] = False
    assert "stress" not in model(data)


def test_left_handed_cells_have_the_same_stress():
    model, data = example(), random_batch(periodic=True)
    mirrored = data.clone()
    mirrored.cell = data.cell[:, [1, 0, 2]]
    torch.testing.assert_close(model(mirrored)["stress"], model(data)["stress"])


def test_gradients_are_kept_where_they_are_enabled():
    model, data = example(), random_batch(periodic=True)
    outputs = model(data)
    sum(value.sum() for value in outputs.values()).backward()
    assert all(parameter.grad is not None for parameter in model.model.layers.parameters())
    with torch.no_grad():
        quiet = model(data)
    for key, value in quiet.items():
        assert not value.requires_grad
        torch.testing.assert_close(value, outputs[key].detach())
    assert not data.pos.requires_grad


def test_derivatives_of_forces():
    model, data = example(), random_batch((3, 2), periodic=True)

    def run(pos, cell):
        moved = data.clone()
        moved.pos, moved.cell = pos, cell
        outputs = model(moved)
        return outputs["forces"], outputs["stress"]

    inputs = data.pos.clone().requires_grad_(), data.cell.clone().requires_grad_()
    assert torch.autograd.gradcheck(run, inputs)


def test_an_isolated_atom_feels_nothing():
    data = random_batch((1, 1), periodic=True)
    data.cell = data.cell * 4
    outputs = example()(data)
    assert not outputs["forces"].any()
    assert not outputs["stress"].any()


def test_hessian_is_that_of_autograd():
    model, data = example(), random_batch((5,))
    single = data[0]

    def energy(pos):
        moved = single.clone()
        moved.pos = pos
        return model.model(moved)["energy"].sum()

    expected = torch.autograd.functional.hessian(energy, single.pos)
    torch.testing.assert_close(hessian(model, single), expected)
    torch.testing.assert_close(hessian(model, single, chunk_size=4), expected)
    vectors = torch.randn_like(single.pos)
    torch.testing.assert_close(product(model, single, vectors), torch.einsum("ixjy,jy->ix", expected, vectors))


def test_hessian_of_a_crystal_has_no_net_force():
    model, data = example(), random_batch((4,), periodic=True)
    found = hessian(model, data)
    torch.testing.assert_close(found, found.permute(2, 3, 0, 1))
    torch.testing.assert_close(found.sum(2), torch.zeros_like(found.sum(2)))


def test_what_cannot_be_is_refused():
    with pytest.raises(FieldError, match="forces need an 'energy'"):
        Forces(EGNN([GraphScalar("gap")], width=4, layers=1))
    with pytest.raises(FieldError, match="predicts forces directly"):
        Forces(EGNN([GraphScalar("energy"), NodeVector("forces")], width=4, layers=1))
    with pytest.raises(FieldError, match="predicts forces and stress directly"):
        Forces(example())
    with pytest.raises(InputError, match="returned charges"):
        Forces(torch.nn.Sequential(EGNN([NodeScalar("charges")], width=4, layers=1)).double())(random_batch())
    with pytest.raises(InputError, match="one structure"):
        hessian(example(), random_batch())
    with pytest.raises(InputError, match="chunk_size is 0"):
        hessian(example(), random_batch((2,)), chunk_size=0)
    with pytest.raises(InputError, match="consists of derivatives of forces"):
        hessian(example().model, random_batch((2,)))


def test_says_whether_it_is_conservative():
    assert example().conservative
    assert EGNN([GraphScalar("energy")], width=4, layers=1).conservative
    assert not EGNN([GraphScalar("energy"), NodeVector("forces")], width=4, layers=1).conservative


def test_frames_inside_have_exact_forces():
    model = Forces(FrameAveraging(network("FAENet"), frames="weighted"))
    assert report(model, checks=["forces", "rotation"]).passed
    assert model.title == "FrameAveraging(FAENet)"


def test_positions_may_have_more_digits_than_the_model():
    """Far from the origin float32 positions lose the geometry; float64 ones keep it."""
    model, data = example(dtype=torch.float32), random_batch()
    exact = copy.deepcopy(model).double()(data)
    data.pos = data.pos + 1e4
    outputs = model(data)
    assert outputs["forces"].dtype == torch.float64
    torch.testing.assert_close(outputs["forces"], exact["forces"], rtol=1e-4, atol=1e-5)


def test_total_energies_keep_their_digits():
    """A sum of large references and a small rest, in a model in float32."""
    data = random_batch((6, 6))
    data.energy = torch.tensor([-40000.123456, -40000.123457], dtype=torch.float64)
    head = GraphScalar("energy")
    model = EGNN([head], width=4, layers=1)
    model.fit_heads(data)
    kept = head.references.clone()
    model = model.double().float()
    assert head.references.dtype == torch.float64
    assert torch.equal(head.references, kept)
    torch.nn.init.zeros_(head.network[-1].weight)
    torch.nn.init.zeros_(head.network[-1].bias)
    batch = Batch.from_data_list([data[0]])
    energy = model(batch)["energy"]  # positions in float64, network in float32
    expected = head.references.gather(0, batch.z).sum()
    torch.testing.assert_close(energy, expected.unsqueeze(0), rtol=0, atol=1e-9)  # float32 is wrong by 4e-3
    assert abs(expected) > 1e4


def test_the_energy_is_scaled_by_the_forces():
    data = random_batch((6, 6))
    data.energy, data.forces = torch.randn(2).double(), 3 * torch.randn(12, 3).double()
    head = GraphScalar("energy")
    EGNN([head], width=4, layers=1).fit_heads(data)
    torch.testing.assert_close(head.scale.double(), data.forces.square().mean().sqrt(), rtol=1e-6, atol=0)


def test_a_huge_force_hardly_scales_the_energy():
    data = random_batch((64, 64, 64, 64))
    data.energy, data.forces = torch.randn(4).double(), torch.randn(256, 3).double()
    head = GraphScalar("energy")
    model = EGNN([head], width=4, layers=1)
    model.fit_heads(data)
    usual = head.scale.item()
    assert usual == pytest.approx(data.forces.square().mean().sqrt().item(), rel=1e-6)
    data.forces[0, 0] = 1000.0  # atoms that were put too close
    model.fit_heads(data)
    assert usual < head.scale.item() < 1.5 * usual < 0.2 * data.forces.square().mean().sqrt().item()
