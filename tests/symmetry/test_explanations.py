"""Explanations of a symmetric model are equivariant; those that depend on the pose are found."""

from __future__ import annotations

import pytest
import torch
from e3nn import o3

from geoeq.errors import FieldError, InputError
from geoeq.geometry.groups import Output
from geoeq.models import EGNN, Equiformer
from geoeq.symmetry import random_batch
from geoeq.symmetry.explanations import explanation_scores, gradient_attribution, occlusion_attribution


@pytest.fixture
def model():
    return EGNN.example().double()


@pytest.mark.parametrize("network", [EGNN, Equiformer])
@pytest.mark.parametrize("attribution", [gradient_attribution, occlusion_attribution])
@pytest.mark.parametrize("periodic", [False, True])
def test_explanations_of_symmetric_models_are_equivariant(network, attribution, periodic):
    scores = explanation_scores(attribution, network.example().double(), random_batch(periodic=periodic), samples=2)
    assert set(scores) == {"rotation", "reflection", "translation", "permutation"}
    for score in scores.values():
        assert score.equivariance == pytest.approx(1, abs=1e-9)
    assert scores["translation"].invariance == pytest.approx(1, abs=1e-9)
    assert scores["permutation"].invariance < 0.99
    if attribution is gradient_attribution:
        assert scores["rotation"].invariance < 0.9
    else:
        assert scores["rotation"].invariance == pytest.approx(1, abs=1e-9)


def test_the_gradient_is_that_of_the_energy(model):
    data = random_batch((4,))
    found = gradient_attribution(model, data).value
    moved = data.clone()
    moved.pos = data.pos.clone()
    moved.pos[2, 1] += 1e-5
    difference = (model(moved)["energy"] - model(data)["energy"]) / 1e-5
    torch.testing.assert_close(found[2, 1], difference[0].detach(), rtol=1e-3, atol=1e-7)


def test_occlusion_of_a_sum_over_atoms_is_its_terms():
    def atoms(data):
        return {"energy": torch.zeros(data.num_graphs).double().index_add(0, data.batch, data.z.double())}

    data = random_batch()
    torch.testing.assert_close(occlusion_attribution(atoms, data).value, data.z.double())


def test_tags_are_handed_on():
    def tagged(data):
        totals = data.pos.new_zeros(data.num_graphs).index_add(0, data.batch, data.tags.to(data.pos))
        return {"energy": totals}

    data = random_batch()
    torch.testing.assert_close(occlusion_attribution(tagged, data).value, data.tags.double())


def test_an_explanation_that_depends_on_the_pose_is_found(model):
    def first_component(model, data, name):
        return Output(gradient_attribution(model, data, name).value[:, 0], "node", o3.Irreps("0e"))

    scores = explanation_scores(first_component, model, random_batch(), samples=4)
    assert scores["rotation"].equivariance < 0.9
    assert scores["translation"].equivariance == pytest.approx(1, abs=1e-9)
    assert scores["permutation"].equivariance == pytest.approx(1, abs=1e-9)


def test_the_opposite_explanation_scores_minus_one():
    signs = iter([1.0, -1.0])

    def fickle(model, data, name):
        return Output(next(signs) * torch.ones(data.num_nodes).double(), "node", o3.Irreps("0e"))

    score = explanation_scores(fickle, lambda data: {}, random_batch(), symmetries=("translation",), samples=1)
    assert score["translation"].invariance == pytest.approx(-1)


def test_what_cannot_be_explained_says_so(model):
    with pytest.raises(FieldError, match="'forces' is a node quantity"):
        gradient_attribution(model, random_batch(), "forces")
    with pytest.raises(InputError, match="samples is 0"):
        explanation_scores(gradient_attribution, model, random_batch(), samples=0)
