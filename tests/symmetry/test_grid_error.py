"""The error of grids is measured: it bounds what rotations show, for any configuration, and excuses nothing else."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from geoeq.layers import ESCNLayer, S2Activation, SeparableS2Activation
from geoeq.models import EGNN, ESCN, EquiformerV2, SampledScalar, SampledVector
from geoeq.symmetry import assert_equivariant, equivariance_errors, random_batch, report, stated_error, with_finer_grids
from geoeq.symmetry.functions import as_function

HEADS = [SampledScalar("energy", degree=8), SampledVector("forces", samples=128)]


def escn(rng, lmax, resolution, layers=2):
    sizes = {"channels": rng.choice([3, 7]), "hidden_channels": 4, "edge_channels": 4, "num_basis": 6}
    return ESCN(HEADS, lmax, rng.randint(0, lmax), layers=layers, resolution=resolution, cutoff=4.0, **sizes)


def equiformer_v2(rng, lmax, resolution, layers=2):
    kinds = {"activation": rng.choice(["separable_s2", "s2"]), "feed_forward": rng.choice(["s2", "separable_grid_mlp"])}
    sizes = {"channels": 3, "hidden_channels": 4, "alpha_channels": 4, "value_channels": 2, "feed_forward_channels": 4}
    edges = {"edge_channels": 4, "num_basis": 6, "cutoff": 4.0, "attention_heads": 2}
    return EquiformerV2(HEADS, lmax, min(lmax, 2), layers, resolution=resolution, **sizes, **kinds, **edges)


def activation(rng, lmax, resolution):
    return rng.choice([S2Activation, SeparableS2Activation])(lmax, rng.choice([1, 5]), resolution)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("build", [escn, equiformer_v2, activation])
def test_rotations_show_no_more_than_the_stated_error(build, seed):
    rng = random.Random(f"{build.__name__} {seed}")
    torch.manual_seed(seed)
    candidate = build(rng, rng.choice([2, 3]), rng.choice([None, 14, 16])).double()
    for parameter in candidate.parameters():
        nn.init.normal_(parameter, std=rng.choice([0.2, 0.5]))
    batch = random_batch(dtype=torch.float64, seed=seed)
    assert_equivariant(candidate, batch, seed=seed)
    assert max(equivariance_errors(candidate, batch, symmetries=("rotation",), seed=seed).values()) > 1e-12


class SlightlyWrong(nn.Module):
    """A network on grids with a term that does not rotate."""

    group = "SE(3)"

    def __init__(self, model, size):
        super().__init__()
        self.model, self.size = model, size

    def forward(self, data):
        return {"forces": self.model(data)["forces"] + self.size}


def test_other_mistakes_are_not_excused():
    torch.manual_seed(0)
    heads = [SampledVector("forces", degree=40)]
    model = ESCN(heads, 2, 1, layers=1, resolution=24, cutoff=4.0, channels=4, hidden_channels=4, num_basis=6).double()
    assert_equivariant(SlightlyWrong(model, 0.0))
    scale = float(model(random_batch(dtype=torch.float64))["forces"].detach().abs().max())
    with pytest.raises(AssertionError, match="rotation of 'forces'"):
        assert_equivariant(SlightlyWrong(model, 1e-3 * scale))


def test_a_network_without_grids_is_exact():
    model, batch = EGNN.example().double(), random_batch(dtype=torch.float64)
    assert with_finer_grids(model) is None
    assert stated_error(model, lambda version: as_function(version)[0](batch)) == 0.0


def test_finer_grids_do_not_change_the_network_itself():
    torch.manual_seed(0)
    model, batch = ESCN.example().double(), random_batch(dtype=torch.float64)
    before = model(batch)
    twin = with_finer_grids(model)
    assert [part.shape for part in twin.parameters()] == [part.shape for part in model.parameters()]
    change = max(float((twin(batch)[name] - value).detach().abs().max()) for name, value in before.items())
    assert 0 < change < 1e-2
    assert all(torch.equal(model(batch)[name], value) for name, value in before.items())


def test_the_report_accepts_the_error_of_grids_in_derivatives_too():
    torch.manual_seed(0)
    model = ESCN(HEADS, 3, 2, layers=1, resolution=10, cutoff=4.0, channels=5, hidden_channels=4, num_basis=6)
    results = {result.name: result for result in report(model, checks=["rotation"]).results}
    assert results["rotation"].error > 1e-7
    assert results["rotation"].status == "passed"


def test_the_error_is_measured_in_all_orientations_that_are_compared():
    """With one hidden channel, grids hardly matter in one orientation, and 500 times as much in another."""
    torch.manual_seed(0)
    sizes = {"channels": 4, "hidden": 1, "edge_channels": 1, "edge_width": 1, "elements": False}
    layer = ESCNLayer(1, 0, **sizes, resolution=20, residual=False).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    assert_equivariant(layer, random_batch((6,)), symmetries=("rotation",), samples=1)
