"""Metrics of the Open Catalyst tasks; fixed atoms never count."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from geoeq.data import load
from geoeq.training.evaluation.baselines import fit_baselines
from geoeq.training.evaluation.catalyst_metrics import catalyst_metrics, distance_metrics, force_metrics
from geoeq.training.evaluation.metrics import free


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_force_metrics_are_their_definitions(random):
    counts = np.array([3, 0, 5, 1])
    truth, energy = random.normal(size=(9, 3)), random.normal(size=4)
    guess = truth.copy()
    guess[4] += [0.029, -0.029, 0.029]  # the vector is wrong by more than 0.03, but no component
    guess[8] += [0.0, 0.031, 0.0]
    off = np.array([0.019, 0.0, -0.019, 0.0])
    metrics = force_metrics((energy + off, energy), (guess, truth), counts)
    assert metrics["EwT"] == (100.0, "%")
    assert metrics["EFwT"] == (75.0, "%")
    assert force_metrics((energy + 1.1 * off, energy), (guess, truth), counts)["EFwT"][0] == 25.0
    assert metrics["energy MAE"][0] == pytest.approx(0.0095)
    assert metrics["force MAE"][0] == pytest.approx((3 * 0.029 + 0.031) / 27)
    cosine = torch.cosine_similarity(torch.tensor(guess), torch.tensor(truth)).mean()
    assert metrics["force cosine"][0] == pytest.approx(float(cosine), abs=1e-12)
    nothing = force_metrics((energy, energy), (0 * truth, truth), counts)
    assert nothing["force cosine"][0] == 0.0


def test_distances_are_to_the_nearest_image(random):
    cells = np.stack([np.eye(3) * 9, [[8.0, 0, 0], [3, 7, 0], [0, 1, 20]]])
    truth = random.normal(size=(6, 3))
    counts = np.array([2, 4])
    shift = np.repeat(np.array([0.2, 0.4]), counts)[:, None] * [0, 0, 1]
    lattice = np.einsum("mi,mij->mj", random.integers(-2, 3, (6, 3)).astype(float), cells[[0, 0, 1, 1, 1, 1]])
    metrics = distance_metrics((truth + shift + lattice, truth), cells, counts)
    assert metrics["distance"][0] == pytest.approx(0.3)
    assert metrics["DwT"] == (100.0, "%")
    thresholds = np.arange(0.01, 0.5, 0.001)
    expected = 50 * ((thresholds > 0.2).mean() + (thresholds > 0.4).mean())
    assert metrics["ADwT"][0] == pytest.approx(expected, abs=0.3)
    far = distance_metrics((truth + 2 * shift, truth), cells, counts)
    assert far["DwT"] == (50.0, "%")


def test_only_free_atoms_count():
    dataset = load("oc20_s2ef_200k", sample=True)
    places = np.array([3, 0, 26])
    mask = dataset.free_atoms(places)
    assert mask.shape == (3 * 97,)
    assert 0 < mask.sum() < len(mask)
    batch = dataset.batch(places, dtype=torch.float64)
    truth = free("forces", batch.forces, batch)
    assert len(truth) == mask.sum() == (~batch.fixed).sum()
    assert free("charges", batch.forces, batch) is batch.forces
    assert free("forces", batch.energy, batch) is batch.energy, "what has another length is not of atoms"
    found = {"energy": (batch.energy.numpy(), batch.energy.numpy()), "forces": (truth.numpy(), truth.numpy())}
    metrics = catalyst_metrics(dataset, places, found)
    assert metrics["EFwT"] == (100.0, "%")
    assert metrics["force cosine"][0] == pytest.approx(1.0)
    zero = next(b for b in fit_baselines(dataset, dataset.split(), "forces") if b.name == "zero")
    assert len(zero.predictions["train"]) == dataset.free_atoms(dataset.split()["train"]).sum()


def test_relaxed_positions_are_compared_with_no_motion():
    dataset = load("oc20_is2re", sample=True)
    split = dataset.split()
    (guess,) = fit_baselines(dataset, split, "relaxed_positions")
    assert guess.name == "no motion"
    batch = dataset.batch(split["train"], dtype=torch.float64)
    mask = ~batch.fixed
    expected = (batch.pos - batch.relaxed_positions)[mask].square().mean().sqrt()
    assert guess.scales["mse"] == pytest.approx(float(expected))
    pair = batch.pos[mask].numpy(), batch.relaxed_positions[mask].numpy()
    metrics = catalyst_metrics(dataset, split["train"], {"relaxed_positions": pair})
    assert 0 < metrics["distance"][0] < 3
    energies = np.array([0.0, 1.0])
    found = {"relaxed_energy": (energies, np.array([0.01, 1.03]))}
    assert catalyst_metrics(dataset, split["train"], found)["EwT"] == (50.0, "%")


def test_data_that_do_not_say_what_is_held():
    dataset = load("qm7", sample=True)
    assert dataset.free_atoms([0, 1]) is None
    assert catalyst_metrics(dataset, np.array([0, 1]), {}) == {}
    data = Data(pos=torch.ones(3, 3))
    assert free("forces", data.pos, data) is data.pos
