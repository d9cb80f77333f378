"""Guesses that need no network."""

from __future__ import annotations

import numpy as np
import pytest

from geoeq.data import load
from geoeq.training import baselines
from geoeq.training.baselines import fit_baselines, parts_of


@pytest.fixture
def qm7() -> object:
    return load("qm7", sample=True)


def test_mean_is_that_of_the_training_set(qm7) -> None:
    split = qm7.split()
    mean = next(b for b in fit_baselines(qm7, split, "atomization_energy") if b.name == "mean")
    values = np.asarray(qm7.targets["atomization_energy"], dtype=np.float64)
    np.testing.assert_allclose(mean.predictions["test"], values[split["train"]].mean())
    assert mean.scale == pytest.approx(values[split["train"]].std())


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
            assert one.scale == pytest.approx(other.scale, rel=1e-10)
            assert set(one.predictions) == set(split)
            for part in split:
                np.testing.assert_allclose(one.predictions[part], other.predictions[part], rtol=1e-10, atol=1e-10)


def kinds(qm7):
    return [(qm7, "atomization_energy"), (load("nbody", sample=True), "positions")]


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
        assert np.sqrt(np.mean((guess - batch.positions.numpy()) ** 2)) > fitted.scale
