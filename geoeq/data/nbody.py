"""The N-body tasks: predict later positions of particles from their positions and velocities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from geoeq.data.edges import EdgeTable
from geoeq.data.nbody_simulation import simulate
from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import InputError, check_name

__all__ = ["NBodyReader", "Start", "draw"]

Real = NDArray[np.float64]

#: Number of states per trajectory in the papers; noise of zero variance is drawn for each.
_STATES = 49


@dataclass(frozen=True)
class Start:
    """State of T systems of n particles: positions, velocities [T, n, 3], couplings [T, n, n], charges [T, n]."""

    positions: Real
    velocities: Real
    couplings: Real
    charges: Real


def draw(kind: str, particles: int, count: int, random: np.random.RandomState) -> Start:
    """Draw initial states with the random numbers of the published generators, in the same order.

    Charged: charges +1 and -1 with equal probability, positions of standard deviation (n/5)^(1/3), random directions
    of speed 0.5. Springs: a spring of constant 0.1 between each pair with probability 1/2, standard deviation 0.5,
    speed 0.5. Gravity: positions and velocities of standard deviation 1, the centre of mass at rest.

    Args:
        kind: "charged", "springs" or "gravity".
        particles: number n of particles.
        count: number T of systems.
        random: random generator; it is advanced exactly as by the published code.

    Raises:
        InputError: the kind is unknown.

    Source:
        As in ``geoeq.data.nbody_simulation``. Differs: initial positions outside a box of 10, which occur less than
        once in a million, are not reflected at its walls.
    """
    check_name("kind of N-body system", kind, _DRAWS)
    start = Start(
        positions=np.empty((count, particles, 3)),
        velocities=np.empty((count, particles, 3)),
        couplings=np.empty((count, particles, particles)),
        charges=np.empty((count, particles)),
    )
    for i in range(count):
        for array, values in zip(_parts(start), _DRAWS[kind](particles, random)):
            array[i] = values
    return start


def _draw_charged(n: int, random: np.random.RandomState) -> tuple[Real, Real, Real, Real]:
    charges = random.choice(np.array([-1.0, 0.0, 1.0]), size=(n, 1), p=[0.5, 0.0, 0.5])
    positions, velocities = _draw_motion(n, (n / 5) ** (1 / 3), random)
    return positions, velocities, charges * charges.T, charges[:, 0]


def _draw_springs(n: int, random: np.random.RandomState) -> tuple[Real, Real, Real, Real]:
    springs = random.choice(np.array([0.0, 0.5, 1.0]), size=(n, n), p=[0.5, 0.0, 0.5])
    springs = np.tril(springs, -1)
    positions, velocities = _draw_motion(n, 0.5, random)
    return positions, velocities, -0.1 * (springs + springs.T), np.zeros(n)


def _draw_motion(n: int, deviation: float, random: np.random.RandomState) -> tuple[Real, Real]:
    positions = random.randn(3, n) * deviation
    velocities = random.randn(3, n)
    velocities *= 0.5 / np.linalg.norm(velocities, axis=0)
    random.randn(2 * _STATES * 3 * n)  # the noise
    return positions.T, velocities.T


def _draw_gravity(n: int, random: np.random.RandomState) -> tuple[Real, Real, Real, Real]:
    positions, velocities = random.randn(n, 3), random.randn(n, 3)
    random.randn(3 * (_STATES + 1) * n * 3)  # the noise
    return positions, velocities - velocities.mean(axis=0), np.full((n, n), -1.0), np.zeros(n)


_DRAWS: dict[str, Callable[[int, np.random.RandomState], tuple[Real, Real, Real, Real]]] = {
    "charged": _draw_charged,
    "springs": _draw_springs,
    "gravity": _draw_gravity,
}


class NBodyReader:
    """Generator of the data: simulates T = train + valid + test systems, in this order.

    The records are the positions and velocities ``vel`` of the state ``start``, and the charges ``charge`` if there are
    any; the column ``later_positions`` [N, 3] holds the positions of the state ``end``. Springs are edges.

    Args:
        kind: "charged", "springs" or "gravity".
        particles: number of particles in a system.
        seed: random seed of numpy's legacy generator.
        train: number of systems for training.
        unused: number of systems that are drawn after these and discarded, as in the papers.
        valid: number of systems for validation.
        test: number of systems for the test.
        start: index of the input state.
        end: index of the state to predict.
        every: number of steps of 0.001 between two states.
    """

    version: ClassVar[int] = 1

    def __init__(
        self,
        kind: str = "charged",
        particles: int = 5,
        seed: int = 43,
        train: int = 3000,
        unused: int = 7000,
        valid: int = 2000,
        test: int = 2000,
        start: int = 30,
        end: int = 40,
        every: int = 100,
    ) -> None:
        if not 0 <= start < end:
            raise InputError(f"start ({start}) and end ({end}) must satisfy 0 <= start < end.")
        if min(train, valid, test) < 0 or unused < 0 or train + valid + test < 1 or particles < 2:
            raise InputError(
                "particles must be 2 or more; train, unused, valid and test must not be negative, nor all zero."
            )
        self.kind, self.particles, self.seed, self.every = kind, particles, seed, every
        self.kept, self.unused = (train, valid + test), unused
        self.start, self.end = start, end

    def read(self, files: Mapping[str, Path]) -> Records:
        """Return the simulated systems; there are no files."""
        random = np.random.RandomState(self.seed)
        first = draw(self.kind, self.particles, self.kept[0], random)
        draw(self.kind, self.particles, self.unused, random)
        rest = draw(self.kind, self.particles, self.kept[1], random)
        joined = [np.concatenate(pair) for pair in zip(_parts(first), _parts(rest))]
        start = Start(*joined)
        return self._records(start, *self._move(start))

    def _move(self, start: Start) -> tuple[Real, Real]:
        later = self.end + 1
        return simulate(self.kind, start.positions, start.velocities, start.couplings, states=later, every=self.every)

    def _records(self, start: Start, positions: Real, velocities: Real) -> Records:
        count, particles = start.charges.shape
        nodes: dict[str, Array] = {"vel": velocities[:, self.start].reshape(-1, 3)}
        if self.kind == "charged":
            nodes["charge"] = start.charges.reshape(-1)
        edges = None
        if self.kind == "springs":
            system, receiver, sender = np.nonzero(start.couplings)
            edges = EdgeTable.from_local(sender, receiver, np.bincount(system, minlength=count))
        return Records(
            positions=positions[:, self.start].reshape(-1, 3),
            ptr=np.arange(count + 1) * particles,
            numbers=None,
            columns={"later_positions": positions[:, self.end].reshape(-1, 3)},
            nodes=nodes,
            edges=edges,
        )


def _parts(start: Start) -> tuple[Real, Real, Real, Real]:
    return start.positions, start.velocities, start.couplings, start.charges
