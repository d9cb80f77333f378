"""Samples have the stated distribution and do not move constrained atoms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms

from geoeq.factory import MD, Modes, Rattle
from geoeq.factory.sampling import MINIMUM, dynamics, free_atoms, hessian, rattled, relaxation, vibrations

#: Of atoms with a well of 1 eV at 2^(1/6) Å, whose curvature is 72 / 2^(1/3) eV/Å².
STRONG = {"epsilon": 1.0, "sigma": 1.0, "rc": 50.0}
DISTANCE, CURVATURE = 2 ** (1 / 6), 72 / 2 ** (1 / 3)


def cluster(*positions: tuple[float, float, float]) -> Atoms:
    return Atoms(f"Ar{len(positions)}", positions, calculator=LennardJones(**STRONG))


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_hessian_of_a_pair_is_its_curvature() -> None:
    pair = cluster((0, 0, 0), (0, 0, DISTANCE))
    expected = np.zeros((6, 6))
    expected[np.ix_([2, 5], [2, 5])] = CURVATURE * np.array([[1, -1], [-1, 1]])
    assert np.allclose(hessian(pair, np.arange(2)), expected, atol=0.01 * CURVATURE)


def test_a_pair_vibrates_as_boltzmann_says() -> None:
    """The variance of the distance is kT/k; the pair neither turns nor moves."""
    pair = cluster((0, 0, 0), (0, 0, DISTANCE))
    frames = list(vibrations(pair, Modes(300.0, 4000), random()))
    positions = np.array([frame.positions for frame in frames])
    assert np.var(positions[:, 1, 2] - positions[:, 0, 2]) == pytest.approx(units.kB * 300 / CURVATURE, rel=0.08)
    assert np.abs(positions[:, :, :2]).max() < 1e-7
    assert np.abs(positions.mean(axis=1) - pair.positions.mean(axis=0)).max() < 1e-7


def test_each_mode_has_half_kt() -> None:
    trimer = cluster((0, 0, 0), (DISTANCE, 0, 0), (DISTANCE / 2, DISTANCE * 3**0.5 / 2, 0))
    matrix = hessian(trimer, np.arange(3))
    frames = vibrations(trimer, Modes(200.0, 4000), random())
    moves = np.array([frame.positions - trimer.positions for frame in frames]).reshape(4000, 9)
    energy = np.einsum("fi,ij,fj->f", moves, matrix, moves).mean() / 2
    assert energy == pytest.approx(1.5 * units.kB * 200, rel=0.05)


def test_vibrations_of_a_held_atom_do_not_move_it() -> None:
    pair = cluster((0, 0, 0), (0, 0, DISTANCE))
    pair.set_constraint(FixAtoms([0]))
    moved = np.array([frame.positions for frame in vibrations(pair, Modes(300.0, 2000), random())]) - pair.positions
    assert np.abs(moved[:, 0]).max() == 0
    assert np.var(moved[:, 1, 2]) == pytest.approx(units.kB * 300 / CURVATURE, rel=0.1)


def test_what_is_no_minimum_does_not_vibrate() -> None:
    with pytest.raises(RuntimeError, match=r"not a minimum: it has a frequency of \d+i cm"):
        next(vibrations(cluster((0, 0, 0), (0, 0, 1.35)), Modes(300.0, 1), random()))


def test_a_single_atom_has_no_vibrations() -> None:
    atom = cluster((1, 2, 3))
    assert np.allclose(next(vibrations(atom, Modes(300.0, 1), random())).positions, atom.positions)


def test_rattling_moves_free_atoms_by_the_spread() -> None:
    atoms = cluster(*[(3.0 * i, 0, 0) for i in range(50)])
    atoms.set_constraint(FixAtoms([0, 7]))
    moved = np.array([frame.positions - atoms.positions for frame in rattled(atoms, Rattle(0.1, 200), random())])
    free = free_atoms(atoms)
    assert np.flatnonzero(~free).tolist() == [0, 7]
    assert np.abs(moved[:, ~free]).max() == 0
    assert moved[:, free].std() == pytest.approx(0.1, rel=0.02)
    assert abs(moved[:, free].mean()) < 0.002


def test_dynamics_has_its_temperature_its_seed_and_its_frames() -> None:
    def run(seed: int) -> list[np.ndarray]:
        atoms = cluster((0, 0, 0), (DISTANCE, 0, 0), (DISTANCE / 2, DISTANCE * 3**0.5 / 2, 0))
        atoms.set_constraint(FixAtoms([0]))
        frames = dynamics(atoms, MD(300.0, 4, 10.0), np.random.default_rng(seed))
        return [frame.positions.copy() for frame in frames]

    first, again, other = run(0), run(0), run(1)
    assert len(first) == 4
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert np.abs(np.array(first)[:, 0]).max() == 0
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.pairwise(first))


def test_a_relaxation_ends_at_the_minimum() -> None:
    pair = cluster((0, 0, 0), (0, 0, 1.3))
    steps = [atoms.positions.copy() for atoms in relaxation(pair, MINIMUM)]
    assert len(steps) > 2
    assert pair.get_distance(0, 1) == pytest.approx(DISTANCE, abs=MINIMUM / CURVATURE)
