"""Simulate many systems of charged, spring-coupled or gravitating particles at once.

All trajectories of a chunk advance together. The chunk is the last axis of every array, so that a step consists of a
few long vector operations on arrays that stay in the cache of one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoeq.errors import InputError, check_name

__all__ = ["LAWS", "Law", "simulate"]

Real = NDArray[np.float64]

#: Bytes of the working arrays of one chunk: about the size of the second-level cache of a core.
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Law:
    """A pair force, and its integrator.

    The force on i is Σ_j c_ij f(r_ij) (x_i - x_j) with the coupling c_ij of the pair; all masses are 1.

    Attributes:
        factor: function r² -> f that writes into its second argument.
        clip: bound on each component of the total force; None for no bound.
        verlet: whether a step is half a kick, a drift and half a kick, and the state is recorded before it. Otherwise
            full kicks and drifts alternate, and the state is recorded after a drift.
    """

    factor: Callable[[Real, Real], None]
    clip: float | None
    verlet: bool


def _inverse_cube(square: Real, out: Real) -> None:
    np.sqrt(square, out=out)
    out *= square
    np.reciprocal(out, out=out)


def _softened_inverse_cube(square: Real, out: Real) -> None:
    square += 0.1**2
    _inverse_cube(square, out)


def _one(square: Real, out: Real) -> None:
    out.fill(1.0)


#: Laws of the papers. Charged and springs: Kipf et al., ICML 2018, arXiv:1802.04687, in three dimensions and
#: without walls as in Satorras et al., ICML 2021, arXiv:2102.09844. Gravity: Brandstetter et al., ICLR 2022,
#: arXiv:2110.02905, softening length 0.1.
LAWS: dict[str, Law] = {
    "charged": Law(_inverse_cube, clip=100.0, verlet=False),
    "springs": Law(_one, clip=100.0, verlet=False),
    "gravity": Law(_softened_inverse_cube, clip=None, verlet=True),
}


def simulate(
    kind: str,
    positions: Real,
    velocities: Real,
    couplings: Real,
    *,
    states: int,
    every: int = 100,
    step: float = 0.001,
) -> tuple[Real, Real]:
    """Simulate T systems of n particles.

    Args:
        kind: "charged", "springs" or "gravity".
        positions: initial positions.
        velocities: initial velocities.
        couplings: symmetric couplings c_ij: q_i q_j for charges, minus the spring constant for springs, minus G for
            gravity.
        states: number of states to record.
        every: number of steps between two recorded states. State k is that of step ``every * (k + 1)``; for gravity, of
            step ``every * k``.
        step: time step.

    Shapes:
        positions, velocities: [T, n, 3]. couplings: [T, n, n]. Returns positions and velocities [T, states, n, 3].

    Raises:
        InputError: the kind is unknown, or shapes or values are invalid.
    """
    check_name("kind of N-body system", kind, LAWS)
    count, particles = positions.shape[:2]
    shape, square = (count, particles, 3), (count, particles, particles)
    if positions.shape != shape or velocities.shape != shape or couplings.shape != square or particles < 2:
        raise InputError(
            f"positions {positions.shape}, velocities {velocities.shape} and couplings {couplings.shape} do not fit: "
            "they must be [T, n, 3], [T, n, 3] and [T, n, n], with at least two particles."
        )
    if states < 1 or every < 1 or step <= 0:
        raise InputError(f"states ({states}), every ({every}) and step ({step}) must be positive.")
    width = _CHUNK_BYTES // (8 * (4 * particles * (particles - 1) + 9 * particles)) or 1
    recorded = np.empty((count, states, particles, 3)), np.empty((count, states, particles, 3))

    for start in range(0, count, width):
        part = slice(start, start + width)
        system = _Chunk(LAWS[kind], positions[part], velocities[part], couplings[part], step)
        for state, (x, v) in enumerate(system.states(states, every)):
            recorded[0][part, state] = x.transpose(2, 1, 0)
            recorded[1][part, state] = v.transpose(2, 1, 0)
    return recorded


class _Chunk:
    """C systems that advance together. Arrays are [3, n, C] for particles and [3, P, C] for the P pairs i < j."""

    def __init__(self, law: Law, positions: Real, velocities: Real, couplings: Real, step: float) -> None:
        self.law = law
        self.step = step
        self.x = np.ascontiguousarray(positions.transpose(2, 1, 0))  # [3, n, C]
        self.v = np.ascontiguousarray(velocities.transpose(2, 1, 0))
        particles, width = self.x.shape[1:]
        first, second = np.triu_indices(particles, 1)
        self.couplings = np.ascontiguousarray(couplings[:, first, second].T)  # [P, C]
        ends = np.cumsum(np.arange(particles - 1, 0, -1))
        self.rows = [slice(end - length, end) for end, length in zip(ends, range(particles - 1, 0, -1))]
        self.offset = np.empty((3, len(first), width))
        self.square = np.empty((len(first), width))
        self.factor = np.empty((len(first), width))
        self.force = np.empty_like(self.x)
        self.change = np.empty_like(self.x)

    def states(self, count: int, every: int) -> Iterator[tuple[Real, Real]]:
        """Yield positions and velocities [3, n, C] of ``count`` states; each is valid until the next is requested."""
        if self.law.verlet:
            self._compute_force()
        for _ in range(count):
            if self.law.verlet:
                yield self.x, self.v
            for _ in range(every):
                self._verlet_step() if self.law.verlet else self._euler_step()
            if not self.law.verlet:
                yield self.x, self.v

    def _euler_step(self) -> None:
        self._compute_force()
        self._kick(self.step)
        self._drift()

    def _verlet_step(self) -> None:
        self._kick(self.step / 2)
        self._drift()
        self._compute_force()
        self._kick(self.step / 2)

    def _kick(self, time: float) -> None:
        np.multiply(self.force, time, out=self.change)
        self.v += self.change

    def _drift(self) -> None:
        np.multiply(self.v, self.step, out=self.change)
        self.x += self.change

    def _compute_force(self) -> None:
        offset, square, factor, force = self.offset, self.square, self.factor, self.force
        for i, row in enumerate(self.rows):
            np.subtract(self.x[:, i : i + 1], self.x[:, i + 1 :], out=offset[:, row])  # x_i - x_j
        np.multiply(offset[0], offset[0], out=square)
        for component in offset[1:]:
            np.multiply(component, component, out=factor)
            square += factor
        self.law.factor(square, factor)
        factor *= self.couplings
        offset *= factor  # the force of j on i
        force.fill(0.0)
        for i, row in enumerate(self.rows):
            np.add.reduce(offset[:, row], axis=1, out=self.change[:, i])
            force[:, i] += self.change[:, i]
            force[:, i + 1 :] -= offset[:, row]
        if self.law.clip is not None:
            np.clip(force, -self.law.clip, self.law.clip, out=force)
