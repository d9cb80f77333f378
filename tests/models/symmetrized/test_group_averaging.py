"""Means over point groups are exact for these; means over samples are right in expectation."""

from __future__ import annotations

import json

import pytest
import torch
from torch_geometric.data import Batch, Data

from geoeq.errors import EmptyGraphError, FieldError, InputError
from geoeq.geometry.rotations import finite_group, irreps_to_matrix, random_orthogonals
from geoeq.models import EGNN, GraphScalar, GroupAveraging, Model, from_config
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch, report

POINT_GROUPS = ["C4", "C3v", "D3", "D2d", "Ci", "S6", "T", "Td", "O", "Oh", "I"]


def averaged(plain, over, *args, **options):
    torch.manual_seed(0)
    return GroupAveraging(plain(), over, *args, **options).double()


@pytest.mark.parametrize("over", POINT_GROUPS)
@pytest.mark.parametrize("periodic", [False, True])
def test_a_point_group_is_respected_and_nothing_more(plain, anyhow, over, periodic):
    model, batch = averaged(plain, over), random_batch(periodic=periodic)
    assert model.group == over
    assert_equivariant(model, batch)
    others = equivariance_errors(anyhow(model), batch, symmetries=("rotation",))
    assert max(others.values()) > 1e-3


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_a_cyclic_group_has_its_axis(plain, axis):
    model, data = averaged(plain, "C3", axis), random_batch((5,))
    assert_equivariant(model, data)
    model.axis = {"x": "y", "y": "z", "z": "x"}[axis]
    kept = finite_group("C3", axis)[1]
    turned = data.clone()
    turned.pos, turned.vel = data.pos @ kept.T, data.vel @ kept.T
    assert (model(turned)["energy"] - model(data)["energy"]).abs() > 1e-3


def test_the_mean_is_that_of_all_elements(plain):
    model, data = averaged(plain, "Td"), random_batch((6, 3))
    moved = data.clone()
    total = 0
    for element in finite_group("Td"):
        centroids = torch.stack([part.mean(0) for part in data.pos.split([6, 3])])[data.batch]
        moved.pos, moved.vel = (data.pos - centroids) @ element, data.vel @ element
        total = total + model.model(moved)["forces"] @ element.T / 24
    torch.testing.assert_close(model(data)["forces"], total)


def test_a_stress_may_be_a_matrix(plain):
    class Matrix(plain):
        def forward(self, data):
            return {"stress": irreps_to_matrix(super().forward(data)["stress"])}

    assert_equivariant(averaged(Matrix, "Oh"))
    assert averaged(Matrix, "O")(random_batch((3, 4)))["stress"].shape == (2, 3, 3)


def test_geoeq_check_asks_for_what_is_claimed(plain):
    checks = ["rotation", "reflection", "translation", "permutation", "batch invariance", "derivatives"]
    checks += ["edges along the axes", "nearly degenerate frames", "continuity"]
    found = report(averaged(plain, "O"), checks=checks)
    assert found.passed, str(found)
    assert set(checks) - set(found.errors) == {"reflection"}
    assert "its group is O" in found["reflection"].detail
    assert len(report(averaged(plain, "Oh"), checks=checks).errors) == len(checks)
    drawn = report(averaged(plain, "SE(3)", samples=3, seed=0), checks=checks)
    assert drawn.passed, str(drawn)
    assert "its group is T(3)" in drawn["rotation"].detail


def test_a_wrong_mean_is_found_out(plain):
    """One element is missing: the check of a point group is one that can fail."""

    class Wrong(GroupAveraging):
        def frames_of(self, data):
            frames = super().frames_of(data)
            return frames.reweighted(torch.where(torch.arange(len(frames.graph)) % 24 == 5, 0.0, frames.weights))

    torch.manual_seed(0)
    errors = equivariance_errors(Wrong(plain(), "O").double(), symmetries=("rotation",))
    assert errors["rotation", "energy"] > 1e-3


@pytest.mark.parametrize("over", ["SE(3)", "E(3)", "SE(2)", "E(2)", "Oh"])
def test_samples_are_right_in_expectation(plain, over):
    """The means of a structure and of one that was turned agree to the error of the mean."""
    count, data = 4000, random_batch((4,))
    model = averaged(plain, over, samples=count)
    assert model.group == "T(3)"
    turn = random_orthogonals(1, torch.Generator().manual_seed(1), torch.float64)[0]
    if over == "SE(3)":
        turn = turn * turn.det()
    elif over != "E(3)":
        turn = finite_group("C4" if over == "SE(2)" else "C4v" if over == "E(2)" else over)[-1]
    turned = data.clone()
    turned.pos, turned.vel = data.pos @ turn.T, data.vel @ turn.T
    with torch.no_grad():
        frames = model.frames_of(data).rotations[:500]
        draws = []
        for rotation in frames:
            seen = data.clone()
            seen.pos, seen.vel = (data.pos - data.pos.mean(0)) @ rotation, data.vel @ rotation
            draws.append(model.model(seen)["dipole"] @ rotation.T)
        one, other = model(data)["dipole"], model(turned)["dipole"]
    spread = torch.cat(draws).std(0).max()
    assert spread > 1e-2
    assert (one @ turn.T - other).abs().max() < 5 * spread * (2 / count) ** 0.5


@pytest.mark.parametrize("over", ["SE(3)", "O"])
def test_the_variance_falls_with_the_samples(plain, over):
    def variance(samples):
        with torch.no_grad():
            return float(averaged(plain, over, samples=samples)(batch)["energy"].var())

    batch = Batch.from_data_list([random_batch((5,))[0]] * 400)
    assert variance(16) == pytest.approx(variance(1) / 16, rel=0.3)


def test_a_seed_fixes_what_is_drawn_in_evaluation(plain):
    model, batch = averaged(plain, "E(3)", samples=2, seed=3), random_batch((8, 9))

    def values():
        with torch.no_grad():
            return len({float(model(batch)["energy"][0]) for _ in range(5)})

    assert values() == 5  # in training
    model.eval()
    assert values() == 1
    torch.testing.assert_close(model(batch)["energy"][1:], model(Batch.from_data_list([batch[1]]))["energy"])


def test_an_invariant_network_is_left_as_it_is():
    torch.manual_seed(0)
    inner = EGNN([GraphScalar("energy")], width=8, layers=2, cutoff=3.0).double()
    for periodic in (False, True):
        batch = random_batch(periodic=periodic)
        for model in (GroupAveraging(inner, "Ih"), GroupAveraging(inner, "E(3)", samples=2)):
            torch.testing.assert_close(model(batch)["energy"], inner(batch)["energy"])


def test_derivatives_are_finite_differences(plain):
    model, batch = averaged(plain, "T"), random_batch((4, 1))
    pos = batch.pos.clone().requires_grad_()

    def run(pos):
        moved = batch.clone()
        moved.pos = pos
        return torch.cat([value.flatten() for value in model(moved).values()])

    assert torch.autograd.gradcheck(run, (pos,), fast_mode=True)
    assert torch.autograd.gradgradcheck(run, (pos,), fast_mode=True)


def test_config_makes_it_again():
    model = GroupAveraging(EGNN([GraphScalar("energy")], width=8, layers=1), "E(2)", "x", samples=4, seed=1)
    again = from_config(json.loads(json.dumps(model.config())), Model)
    assert again.config() == model.config()
    assert (again.over, again.axis, again.samples, again.seed) == ("E(2)", "x", 4, 1)
    assert GroupAveraging.example()(random_batch((3, 1), dtype=torch.float32))["energy"].shape == (2,)


def test_what_cannot_be_meant_is_refused(plain):
    with pytest.raises(InputError, match="No point group is called 'SO3'"):
        GroupAveraging(plain(), "SO3")
    with pytest.raises(InputError, match=r"SE\(3\) is an infinite group"):
        GroupAveraging(plain(), "SE(3)")
    with pytest.raises(InputError, match=r"axis is 'x', but E\(3\)"):
        GroupAveraging(plain(), "E(3)", "x", samples=2)
    with pytest.raises(InputError, match="axis is 'w'"):
        GroupAveraging(plain(), "C2", "w")
    with pytest.raises(InputError, match="samples is 0"):
        GroupAveraging(plain(), "O", samples=0)
    with pytest.raises(EmptyGraphError):
        averaged(plain, "O")(Data(pos=torch.zeros(0, 3), z=torch.zeros(0, dtype=torch.int64)))
    with pytest.raises(FieldError, match="'nonsense'"):
        GroupAveraging(lambda data: {"nonsense": data.pos})(random_batch((2,)))
