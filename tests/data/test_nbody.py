"""The simulators do what their equations say, and what the published one did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoeq.data import load
from geoeq.data.nbody import NBodyReader, draw
from geoeq.data.nbody_simulation import LAWS, simulate
from geoeq.errors import InputError

REFERENCE = np.load(Path(__file__).parent / "nbody_reference.npz")


def forces(kind: str, x: np.ndarray, couplings: np.ndarray) -> np.ndarray:
    """The definition, for one system: x [n, 3], couplings [n, n]."""
    force = np.zeros_like(x)
    for i in range(len(x)):
        for j in range(len(x)):
            if i == j:
                continue
            offset = x[i] - x[j]
            square = offset @ offset
            factor = {"charged": square**-1.5, "springs": 1.0, "gravity": (square + 0.01) ** -1.5}[kind]
            force[i] += couplings[i, j] * factor * offset
    return force if kind == "gravity" else np.clip(force, -100, 100)


@pytest.mark.parametrize("kind", LAWS)
@pytest.mark.parametrize("particles", [2, 3, 5, 9])
def test_steps_as_defined(kind, particles):
    start = draw(kind, particles, 3, np.random.RandomState(0))
    x, v = simulate(kind, start.positions, start.velocities, start.couplings, states=3, every=4, step=0.01)
    for system in range(3):
        q, p, c = start.positions[system].copy(), start.velocities[system].copy(), start.couplings[system]
        for state in range(3):
            if kind == "gravity":
                np.testing.assert_allclose(x[system, state], q, rtol=0, atol=1e-10)
                np.testing.assert_allclose(v[system, state], p, rtol=0, atol=1e-10)
            for _ in range(4):
                if kind == "gravity":
                    p = p + 0.005 * forces(kind, q, c)
                    q = q + 0.01 * p
                    p = p + 0.005 * forces(kind, q, c)
                else:
                    p = p + 0.01 * forces(kind, q, c)
                    q = q + 0.01 * p
            if kind != "gravity":
                np.testing.assert_allclose(x[system, state], q, rtol=0, atol=1e-10)
                np.testing.assert_allclose(v[system, state], p, rtol=0, atol=1e-10)


def test_chunks_do_not_matter():
    start = draw("charged", 5, 2000, np.random.RandomState(1))
    together, _ = simulate("charged", start.positions, start.velocities, start.couplings, states=2, every=5)
    last, _ = simulate("charged", start.positions[-3:], start.velocities[-3:], start.couplings[-3:], states=2, every=5)
    np.testing.assert_allclose(together[-3:], last, rtol=0, atol=1e-12)


def test_forces_are_clipped():
    positions = np.array([[[0.0, 0, 0], [1e-3, 0, 0]]])
    _, v = simulate("charged", positions, np.zeros((1, 2, 3)), np.ones((1, 2, 2)), states=1, every=1)
    np.testing.assert_allclose(v[0, 0], [[-0.1, 0, 0], [0.1, 0, 0]], atol=1e-15)


@pytest.mark.parametrize("kind", LAWS)
def test_momentum_and_energy_are_kept(kind):
    start = draw(kind, 4, 20, np.random.RandomState(5))
    x, v = simulate(kind, start.positions, start.velocities, start.couplings, states=11, every=10)
    total = v.sum(axis=2)  # [T, states, 3]
    np.testing.assert_allclose(total, np.broadcast_to(total[:, :1], total.shape), atol=1e-9)
    first, second = np.triu_indices(4, 1)
    square = ((x[:, :, first] - x[:, :, second]) ** 2).sum(-1)
    c = start.couplings[:, None, first, second]
    potential = {
        "charged": c / np.sqrt(square),
        "springs": -c * square / 2,
        "gravity": c / np.sqrt(square + 0.01),
    }[kind].sum(-1)
    energy = (v**2).sum((2, 3)) / 2 + potential
    drift = abs(energy - energy[:, :1]).max(axis=1)
    assert np.median(drift) < 0.02


def test_states_of_the_published_program():
    records = NBodyReader(train=200, unused=0, valid=0, test=0).read({})
    found = {
        "loc0": records.positions,
        "vel0": records.nodes["vel"],
        "locT": records.columns["later_positions"],
    }
    np.testing.assert_array_equal(records.nodes["charge"].reshape(200, 5), REFERENCE["charges"])
    off = np.zeros(200)
    for name, values in found.items():
        error = abs(values.reshape(200, 5, 3) - REFERENCE[name]).max(axis=(1, 2))
        assert np.median(error) < 1e-6, "the file has single precision"
        off = np.maximum(off, error)
    # Close encounters are chaotic: there the last digit decides.
    assert np.mean(off > 1e-4) < 0.10


def test_systems_that_differ_are_chaotic():
    start = draw("charged", 5, 200, np.random.RandomState(43))
    nudge = 1 + 1e-12 * np.random.RandomState(0).randn(200, 5, 3)
    states = [
        simulate("charged", positions, start.velocities, start.couplings, states=41)[0]
        for positions in (start.positions, start.positions * nudge)
    ]
    chaotic = abs(states[0] - states[1])[:, [30, 40]].max(axis=(1, 2, 3)) > 1e-6
    off = np.maximum(
        abs(states[0][:, 30] - REFERENCE["loc0"]).max(axis=(1, 2)),
        abs(states[0][:, 40] - REFERENCE["locT"]).max(axis=(1, 2)),
    )
    assert off[~chaotic].max() < 1e-4
    assert (off > 1e-4).any(), "these systems hold some such encounters"
    assert chaotic.mean() < 0.2


@pytest.mark.slow
def test_the_published_data_set():
    dataset = load("nbody")
    split = dataset.split()
    assert {part: len(places) for part, places in split.items()} == {"train": 3000, "valid": 2000, "test": 2000}
    valid = dataset.batch(split["valid"][:5])
    np.testing.assert_array_equal(valid.charge.reshape(5, 5).numpy(), REFERENCE["valid_charges"])
    error = abs(valid.pos.reshape(5, 5, 3).numpy() - REFERENCE["valid_loc0"]).max(axis=(1, 2))
    assert np.median(error) < 1e-6
    test = dataset.batch(split["test"])
    still = (test.positions - test.pos).square().mean()
    moving = (test.positions - test.pos - 0.721 * test.vel).square().mean()
    assert float(still) == pytest.approx(0.2716, abs=0.002)
    assert float(moving) == pytest.approx(0.0837, abs=0.002)


def test_the_sample():
    dataset = load("nbody", sample=True)
    data = dataset[7]
    assert len(dataset) == 100
    assert "z" not in data
    assert data.pos.shape == data.vel.shape == data.positions.shape == (5, 3)
    assert set(data.charge.tolist()) <= {-1.0, 1.0}
    assert dataset.card.targets["positions"].to_report("positions") == 1


def test_springs_are_edges(tmp_path):
    reader = NBodyReader(kind="springs", particles=6, train=4, unused=0, valid=2, test=1, start=1, end=2)
    records = reader.read({})
    start = draw("springs", 6, 7, np.random.RandomState(43))
    for system in range(7):
        edges = slice(*records.edges.ptr[system : system + 2])
        sender, receiver = records.edges.pairs[edges].T.astype(int)
        found = set(zip(receiver.tolist(), sender.tolist()))
        assert found == set(zip(*(axis.tolist() for axis in np.nonzero(start.couplings[system]))))
        assert np.all(np.diff(receiver) >= 0)
    assert set(np.unique(start.couplings)) == {-0.1, 0.0}
    assert "charge" not in records.nodes


def test_gravity_begins_at_rest_and_is_seen_before_a_step():
    start = draw("gravity", 8, 3, np.random.RandomState(0))
    np.testing.assert_allclose(start.velocities.mean(axis=1), 0, atol=1e-15)
    x, _ = simulate("gravity", start.positions, start.velocities, start.couplings, states=1)
    np.testing.assert_array_equal(x[:, 0], start.positions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "charge"}, "Did you mean 'charged'"),
        ({"positions": np.zeros((1, 3, 2))}, r"positions \(1, 3, 2\)"),
        ({"couplings": np.zeros((1, 3, 2))}, "do not fit"),
        ({"states": 0}, r"states \(0\)"),
        ({"step": 0.0}, r"step \(0.0\)"),
    ],
)
def test_arguments_that_cannot_be(arguments, message):
    good = {
        "kind": "charged",
        "positions": np.random.RandomState(0).randn(1, 3, 3),
        "velocities": np.zeros((1, 3, 3)),
        "couplings": np.ones((1, 3, 3)),
        "states": 1,
    }
    with pytest.raises(InputError, match=message):
        simulate(**(good | arguments))


@pytest.mark.parametrize("options", [{"kind": "charge"}, {"start": 5, "end": 5}, {"train": -1}])
def test_options_that_cannot_be(options):
    with pytest.raises(InputError):
        NBodyReader(**({"train": 1, "unused": 0, "valid": 0, "test": 0} | options)).read({})
