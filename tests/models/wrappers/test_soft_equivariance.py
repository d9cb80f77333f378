"""Soft equivariance: errors of each symmetry with derivatives, and strengths that find which of them the task has."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data

from geoeq.errors import InputError
from geoeq.geometry.rotations import random_turns
from geoeq.models import (
    EGNN,
    DecodedVector,
    EveryLayerScalar,
    FAENet,
    GraphScalar,
    Model,
    NodeVector,
    SoftEquivariance,
    from_config,
)
from geoeq.models.checkpoint import load_checkpoint, save_checkpoint
from geoeq.models.wrappers.soft_equivariance import tuned_strengths
from geoeq.symmetry import equivariance_errors, random_batch, report

TURNS = ("rotation about x", "rotation about y", "rotation about z")


class Points(nn.Module):
    """A network of each atom's coordinates as they are, summed."""

    def __init__(self, width=32):
        super().__init__()
        inner = [nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)]
        self.inner = nn.Sequential(*inner)

    def forward(self, data):
        value = self.inner(data.pos).squeeze(-1)
        return {"energy": value.new_zeros(len(data.ptr) - 1).index_add(0, data.batch, value)}


class Weight(nn.Module):
    """What a weight along z gives: an energy and forces, whose errors of symmetry can be written down."""

    def forward(self, data):
        height = data.pos[:, 2]
        energy = height.new_zeros(len(data.ptr) - 1).index_add(0, data.batch, height)
        return {"energy": energy, "forces": data.pos.new_tensor([0.0, 0.0, -1.0]).expand_as(data.pos)}


def errors_of(model, data, samples=150):
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = [model.symmetry_errors(data) for _ in range(samples)]
    return {name: float(torch.stack([draw[name] for draw in drawn]).mean()) for name in model.symmetries}


def test_errors_are_what_they_are_by_hand():
    """A unit vector u along z, and R u at an angle with it whose cosine is uniform: E |R u - u|² = 2; about x it is
    uniform in the angle, 2 as well; a mean over the three components divides by 3."""
    data = Batch.from_data_list([Data(pos=torch.zeros(2, 3, dtype=torch.float64)) for _ in range(3)])
    names = ("rotation", "reflection", "translation", "permutation", *TURNS, "reflection about z", "reflection about x")
    found = errors_of(SoftEquivariance(Weight(), names), data)
    # the energy of atoms at the origin breaks translations alone: by twice a normal number of deviation 3, squared
    for name in ("rotation", "reflection", "rotation about x", "rotation about y", "reflection about x"):
        assert found[name] == pytest.approx(2 / 3 / 2, rel=0.2), name
    assert found["translation"] == pytest.approx((2 * 3) ** 2 / 2, rel=0.3)
    for name in ("rotation about z", "reflection about z", "permutation"):
        assert found[name] < 1e-25, name


def test_networks_with_a_symmetry_have_no_error_of_it():
    torch.manual_seed(0)
    names = ("rotation", "reflection", "translation", "permutation")
    exact = EGNN([GraphScalar("energy"), NodeVector("forces")], width=8, layers=1, cutoff=4.0).double()
    data = random_batch((5, 1, 9))
    assert max(errors_of(SoftEquivariance(exact, names), data, 3).values()) < 1e-20
    single = Data(pos=data.pos[:5], z=data.z[:5])
    assert max(errors_of(SoftEquivariance(exact, names), single, 2).values()) < 1e-20
    heads = [EveryLayerScalar("energy"), DecodedVector("forces", hidden=8)]
    plain = FAENet(heads, width=8, filters=8, layers=1, num_basis=8, cutoff=4.0).double()
    found = errors_of(SoftEquivariance(plain, names), random_batch((5, 1, 9)), 3)
    assert found["translation"] < 1e-20
    assert found["permutation"] < 1e-20
    assert min(found["rotation"], found["reflection"]) > 1e-6


def test_the_loss_has_the_derivatives_of_both_sides():
    torch.manual_seed(0)
    model = SoftEquivariance(Points(4).double(), TURNS, {name: k + 1.0 for k, name in enumerate(TURNS)})
    data = random_batch((3, 2))
    weight = model.model.inner[0].weight

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.soft = model.eval()

        def forward(self):
            torch.manual_seed(1)
            return self.soft.auxiliary_losses["equivariance"](data)

    whole = Loss()

    def run(weight):
        return torch.func.functional_call(whole, {"soft.model.inner.0.weight": weight}, ())

    assert torch.autograd.gradcheck(run, (weight.detach().clone().requires_grad_(),))
    torch.manual_seed(1)
    errors = model.symmetry_errors(data)
    torch.testing.assert_close(whole(), sum((k + 1.0) * errors[name] for k, name in enumerate(TURNS)))


def clouds(count, seed, axis):
    """Three points that fall along an axis: the energy stays what it is where they turn about it."""
    generator = torch.Generator().manual_seed(seed)
    data = Batch.from_data_list([Data(pos=torch.randn(3, 3, generator=generator)) for _ in range(count)])
    height = data.pos[:, axis]
    each = height + 0.5 * (data.pos.square().sum(-1) - height.square()).sin()
    data.energy = torch.zeros(count).index_add(0, data.batch, each)
    return data


def fitted(axis, steps=300, **options):
    """A small network after some steps, and its error on structures that it has not seen."""
    torch.manual_seed(0)
    model, data, others = SoftEquivariance(Points(), TURNS, **options), clouds(64, 1, axis), clouds(500, 2, axis)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = nn.functional.mse_loss(model(data)["energy"], data.energy)
        if float(model.strengths.sum()) > 0:
            loss = loss + model.auxiliary_losses["equivariance"](data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return model, float(nn.functional.mse_loss(model(others)["energy"], others.energy))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_tuned_strengths_find_the_axis_of_the_task(axis):
    model, _ = fitted(axis, steps=100, tune_after=100)
    strengths = dict(zip(TURNS, model.strengths.tolist()))
    assert strengths.pop(TURNS[axis]) == pytest.approx(1.0)
    assert max(strengths.values()) < 0.05


def test_the_symmetry_that_is_found_helps_and_the_others_would_have_hurt():
    """On structures not seen: less error than without, and far less than where all are asked for to the end."""
    _, tuned = fitted(2, tune_after=100)
    _, without = fitted(2, strength=0.0)
    _, kept = fitted(2)
    assert tuned < 0.8 * without
    assert without < 0.5 * kept


def test_the_rule_of_tuning():
    """Each falls by the power of its error over the least; one that is not asked for is not counted."""
    strengths = tuned_strengths(torch.tensor([4.0, 4.0, 0.0]), torch.tensor([0.2, 0.6, 1e-3]), 3.0)
    torch.testing.assert_close(strengths, torch.tensor([4.0, 4 / 27, 0.0]))


def test_what_the_network_has_by_itself_does_not_count():
    """Of a symmetry that it has it knows nothing of the task: it keeps its strength, and is not the least error."""
    strengths = tuned_strengths(torch.ones(4), torch.tensor([1e-14, 0.0, 0.1, 0.2]), 2.0, rounding=1e-12)
    torch.testing.assert_close(strengths, torch.tensor([1.0, 1.0, 1.0, 0.25]))
    assert tuned_strengths(torch.ones(2), torch.zeros(2), 2.0).tolist() == [1.0, 1.0]


def test_rounding_of_large_energies_is_no_broken_symmetry():
    """In float32 an energy of 1e5 has an error of 1e-2 where the order of a sum changes: of the permutation, too."""

    class Heavy(Points):
        def forward(self, data):
            value = 2e4 + self.inner(data.pos).squeeze(-1) + data.pos[:, 2]
            return {"energy": value.new_zeros(len(data.ptr) - 1).index_add(0, data.batch, value)}

    torch.manual_seed(0)
    model = SoftEquivariance(Heavy(), ("permutation", "rotation", "rotation about z"), tune_after=1)
    model.auxiliary_losses["equivariance"](random_batch((9, 8, 7, 6), dtype=torch.float32))
    assert model.errors[0] > 0
    assert model.strengths[0] == 1.0
    assert model.strengths[1] < 1.0
    assert model.strengths[2] == 1.0


def test_errors_are_followed_and_tuned_once():
    """The mean of the calls so far, each with the strengths that it has then."""
    model, data = SoftEquivariance(Points().double(), TURNS, tune_after=2).double(), random_batch((3, 4))
    loss, found, values = model.auxiliary_losses["equivariance"], [], []
    for call in range(3):
        torch.manual_seed(call)
        found.append(torch.stack(list(model.symmetry_errors(data).values())))
        torch.manual_seed(call)
        values.append(loss(data))
    assert model.calls == 3
    torch.testing.assert_close(model.errors, torch.stack(found).mean(0))
    strengths = tuned_strengths(torch.ones(3).double(), (found[0] + found[1]) / 2, 2.0)
    torch.testing.assert_close(model.strengths, strengths)
    expected = torch.stack([found[0].sum(), (strengths * found[1]).sum(), (strengths * found[2]).sum()])
    torch.testing.assert_close(torch.stack(values), expected)


def test_nothing_is_counted_in_evaluation():
    model, data = SoftEquivariance(Points().double(), TURNS, tune_after=1).double(), random_batch()
    model.eval()
    model.auxiliary_losses["equivariance"](data)
    assert model.calls == 0
    model.train()
    model.auxiliary_losses["equivariance"](data).backward()
    assert model.calls == 1


def test_outputs_and_group_are_those_of_the_network():
    torch.manual_seed(0)
    model, data = SoftEquivariance.example().double(), random_batch()
    assert torch.equal(model(data)["energy"], model.model(data)["energy"])
    assert model.group == "T(3)"
    assert set(equivariance_errors(model)) == {(name, "energy") for name in ("translation", "permutation", "batch")}
    assert SoftEquivariance(EGNN.example()).group == "E(3)"


def small(**options):
    torch.manual_seed(0)
    heads = [EveryLayerScalar("energy"), DecodedVector("forces", hidden=8)]
    inner = FAENet(heads, width=8, filters=8, layers=1, num_basis=8, cutoff=4.0)
    return SoftEquivariance(inner, ("rotation", "reflection about z"), **options)


def test_errors_are_in_scales_of_the_targets():
    """Fitted to targets a thousand times as large, a network that is a thousand times as large has the same errors."""
    data = random_batch((5, 6, 9, 4) * 5)
    energy, forces = (torch.randn(*shape, dtype=torch.float64) for shape in ((20,), (120, 3)))
    found = []
    for factor in (1.0, 1000.0):
        model = small().double()
        data.energy, data.forces = factor * energy, factor * forces
        model.fit_heads(data)
        assert float(model.scales[1]) == pytest.approx(factor * float(forces.square().mean().sqrt()), rel=1e-5)
        for parameter in model.model.heads[1].parameters():
            parameter.data *= 0  # its outputs have no scale of their own
        found.append(errors_of(model, data, 3))
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[0]["rotation"] > 1e-12


def test_positions_are_measured_as_displacements():
    data = random_batch((5, 4))

    class Moved(nn.Module):
        fields = MappingProxyType({"positions": None})

        def forward(self, data):
            return {"positions": data.pos + data.pos.new_tensor([0.1, 0.0, 0.0])}

    model = SoftEquivariance(Moved(), ("rotation", "translation")).double()
    data.positions = data.pos + 0.1 / 3**0.5 * torch.tensor([1.0, 0.0, 0.0])
    model.fit_heads(data)
    assert float(model.scales) == pytest.approx(0.1 / 3)
    found = errors_of(model, data)
    assert found["translation"] < 1e-20
    assert found["rotation"] == pytest.approx(2 / 3 * 9, rel=0.2)


def test_a_checkpoint_has_the_strengths(tmp_path):
    model, data = small(tune_after=2), random_batch(dtype=torch.float32)
    data.energy = torch.randn(4)
    model.fit_heads(data)
    for _ in range(2):
        model.auxiliary_losses["equivariance"](data)
    assert model.strengths.min() < 1
    save_checkpoint(model, tmp_path)
    again, _ = load_checkpoint(tmp_path)
    assert isinstance(again, SoftEquivariance)
    assert torch.equal(again.strengths, model.strengths)
    assert again.extra_metrics() == model.extra_metrics()
    assert set(again.extra_metrics()) == {
        f"{what} of {name}" for what in ("error", "strength") for name in model.symmetries
    }
    assert torch.equal(again(data)["energy"], model.eval()(data)["energy"])
    several = small(strength={"rotation": 0.5, "reflection about z": 2.0}).config()
    assert from_config(json.loads(json.dumps(several)), Model).config() == several


def test_turns_about_an_axis_are_those_of_the_name():
    """The drawn element leaves the axis alone: for z, turns of the whole batch about z change nothing at all."""
    model = SoftEquivariance(Weight(), ("rotation about z",))
    data = random_batch((5, 4))
    turn = random_turns(1, [0.0, 0.0, 1.0], torch.Generator().manual_seed(0), torch.float64)[0]
    moved = data.clone()
    moved.pos = data.pos @ turn.T
    assert errors_of(model, moved, 2)["rotation about z"] < 1e-20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"symmetries": ["rotaton"]}, r"No symmetry is called 'rotaton'. Did you mean 'rotation'"),
        ({"symmetries": []}, "one or more distinct names"),
        ({"symmetries": ["rotation", "rotation"]}, "one or more distinct names"),
        ({"strength": -1.0}, "strength must be 0 or more"),
        ({"strength": float("nan")}, "strength must be 0 or more"),
        ({"strength": {"rotation": 1.0}}, r"for each of rotation, reflection; it is"),
        ({"strength": {"translation": 1.0}}, "'translation'"),
        ({"tune_after": 0}, "tune_after is 0; it must be 1 or more"),
        ({"power": -1.0}, "power is -1.0; it must be 0 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        SoftEquivariance(Points(), **options)


@pytest.mark.parametrize(("norm", "failed"), [("layer", ()), ("graph", ("size extensivity",))])
def test_energies_are_extensive_unless_a_norm_over_the_graph_couples_its_atoms(norm, failed):
    torch.manual_seed(0)
    inner = FAENet([EveryLayerScalar("energy")], width=8, filters=8, layers=1, num_basis=8, cutoff=4.0, norm=norm)
    assert report(SoftEquivariance(inner), checks=["size extensivity"]).failed == failed
    if norm == "layer":
        assert report(SoftEquivariance.example(), checks=["size extensivity"]).passed
