"""Baselines, which need no network."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch

from geoeq.data import load
from geoeq.training.evaluation import baselines
from geoeq.training.evaluation.baselines import fit_baselines, parts_of
from geoeq.training.evaluation.metrics import free
from geoeq.training.parsing import read_recipe
from geoeq.training.recipe import LossSettings
from geoeq.training.setup import build_experiment


@pytest.fixture
def qm7() -> object:
    return load("qm7", sample=True)


def test_mean_is_that_of_the_training_set(qm7) -> None:
    split = qm7.split()
    mean = next(b for b in fit_baselines(qm7, split, "atomization_energy") if b.name == "mean")
    values = np.asarray(qm7.targets["atomization_energy"], dtype=np.float64)
    np.testing.assert_allclose(mean.predictions["test"], values[split["train"]].mean())
    assert mean.scales["mse"] == pytest.approx(values[split["train"]].std())


def test_composition_is_ordinary_least_squares(qm7) -> None:
    split = qm7.split()
    linear = fit_baselines(qm7, split, "atomization_energy")[-1]
    assert linear.name == "linear model on composition"
    elements = np.unique(qm7.numbers)
    numbers = [qm7.numbers[qm7.ptr[g] : qm7.ptr[g + 1]] for g in range(len(qm7))]
    counts = np.array([[(z == element).sum() for element in elements] + [1] for z in numbers], dtype=np.float64)
    values = np.asarray(qm7.targets["atomization_energy"], dtype=np.float64)
    solution = np.linalg.lstsq(counts[split["train"]], values[split["train"]], rcond=None)[0]
    np.testing.assert_allclose(linear.predictions["test"], (counts @ solution)[split["test"]], rtol=1e-6)


def test_the_training_set_is_read_in_parts(qm7, monkeypatch) -> None:
    whole = {target: fit_baselines(data, data.split(), target) for data, target in kinds(qm7)}
    monkeypatch.setattr(baselines, "_ATOMS", 100)
    for data, target in kinds(qm7):
        split = data.split()
        parts = parts_of(data, split["train"])
        assert len(parts) > 2
        assert np.concatenate(parts).tolist() == sorted(split["train"])
        assert max(int(np.diff(data.ptr)[places].sum()) for places in parts) < 100 + np.diff(data.ptr).max()
        for one, other in zip(whole[target], fit_baselines(data, split, target), strict=True):
            assert one.name == other.name
            assert one.scales == pytest.approx(other.scales, rel=1e-10)
            assert set(one.predictions) == set(split)
            for part in split:
                np.testing.assert_allclose(one.predictions[part], other.predictions[part], rtol=1e-10, atol=1e-10)


def kinds(qm7):
    return [(qm7, "atomization_energy"), (load("nbody", sample=True), "positions")]


def test_composition_that_fits_the_training_set_exactly_is_no_baseline(qm7) -> None:
    columns = len(np.unique(qm7.numbers)) + 1
    names = {}
    for count in (3, 4 * columns):
        places = qm7.split()["train"][:count]
        names[count] = [b.name for b in fit_baselines(qm7, {"train": places, "test": places}, "atomization_energy")]
    assert names == {3: ["mean"], 4 * columns: ["mean", "linear model on composition"]}


def test_velocity_is_scaled_by_least_squares() -> None:
    data = load("nbody", sample=True)
    split = data.split()
    guesses = {b.name.partition(",")[0].split(" ")[0]: b for b in fit_baselines(data, split, "positions")}
    still, fitted = guesses["no"], fit_baselines(data, split, "positions")[-1]
    batch = data.batch(split["train"])
    np.testing.assert_allclose(still.predictions["train"], batch.pos.numpy(), atol=1e-6)
    time = float(fitted.name.split()[2].rstrip(","))
    for other in (time - 0.05, time + 0.05):
        guess = batch.pos.numpy() + other * batch.vel.numpy()
        assert np.sqrt(np.mean((guess - batch.positions.numpy()) ** 2)) > fitted.scales["mse"]


@pytest.fixture
def catalyst() -> object:
    return load("oc20_s2ef_200k", sample=True)


def test_scales_are_the_errors_in_the_norms_of_the_losses(catalyst) -> None:
    split = catalyst.split()
    batch = catalyst.batch(split["train"], dtype=torch.float64)
    forces = batch.forces[~batch.fixed.bool()].numpy()
    (zero,) = fit_baselines(catalyst, split, "forces")
    assert zero.scales["mse"] == pytest.approx(np.sqrt((forces**2).mean()))
    assert zero.scales["mae"] == pytest.approx(np.abs(forces).mean())
    assert zero.scales["length"] == pytest.approx(np.sqrt((forces**2).sum(1)).mean())
    linear = fit_baselines(catalyst, split, "energy")[-1]
    assert linear.scales["length"] == linear.scales["mae"] <= linear.scales["mse"]
    assert set(zero.scales) == set(get_args(get_type_hints(LossSettings)["name"]))


def test_one_huge_force_weighs_in_a_scale_as_in_its_loss(catalyst) -> None:
    split = catalyst.split()
    values = np.random.default_rng(0).normal(size=np.shape(catalyst.targets["forces"]))
    catalyst.targets["forces"] = values
    usual = fit_baselines(catalyst, split, "forces")[0].scales
    places = catalyst.ptr[split["train"][0]] + np.flatnonzero(catalyst.free_atoms(split["train"][:1]))
    values[places[0]] *= 100
    spoilt = fit_baselines(catalyst, split, "forces")[0].scales
    assert spoilt["mse"] > 4 * usual["mse"]
    for loss in ("mae", "length"):
        assert 1 < spoilt[loss] / usual[loss] < 2


def test_a_model_as_good_as_its_baseline_has_the_loss_of_its_weights(tmp_path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        "dataset: oc20_s2ef_200k\nsample: true\ntarget: [energy, forces]\nforces: direct\ndevice: cpu\n"
        "model: {class_path: geoeq.models.EGNN, init_args: {width: 8, layers: 1, cutoff: 3.0}}\n"
    )
    experiment = build_experiment(read_recipe(file), "small.yaml")
    batch = experiment.dataset.batch(experiment.split["train"], dtype=torch.float64)
    truth = {name: free(name, batch[name], batch) for name in ("energy", "forces")}
    guess = {name: torch.from_numpy(experiment.baselines[name][-1].predictions["train"]) for name in truth}
    for name in ("mse", "mae", "length"):
        settings = LossSettings(name, {"energy": 2.0, "forces": 5.0})
        loss = replace(experiment, recipe=replace(experiment.recipe, loss=settings)).loss()
        assert float(loss(guess, truth, batch.ptr.diff())) == pytest.approx(7.0), name
