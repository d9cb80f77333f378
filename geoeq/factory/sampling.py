"""Structures around a start: relaxation, molecular dynamics, random displacements, and vibrations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary
from ase.optimize import BFGS
from numpy.typing import NDArray

from geoeq.factory.settings import MD, Modes, Rattle

__all__ = ["MINIMUM", "RELAXED", "dynamics", "free_atoms", "hessian", "rattled", "relaxation", "vibrations"]

Real = NDArray[np.float64]

_TIMESTEP, _FRICTION_TIME = 0.5, 100.0  # fs

_MOST_STEPS = 1000

#: Displacement of the finite differences, Å.
_DELTA = 0.005

#: Softer vibrations, which a harmonic law would let move too far, move as if they were of this, cm⁻¹.
_SOFTEST = 50.0

#: A frequency further below zero is no round-off: this is no minimum, cm⁻¹.
_IMAGINARY = 100.0

#: ω² of 1 cm⁻¹, in ASE's units, eV/Å²/amu.
_SQUARE = (units.invcm / (units._hbar * units.J * units.second)) ** 2

#: Largest force of what is relaxed, and of a minimum from which vibrations start, eV/Å.
RELAXED, MINIMUM = 0.05, 0.01


def free_atoms(atoms: Atoms) -> NDArray[np.bool_]:
    """Which atoms no constraint holds, [n]."""
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            free[constraint.index] = False
    return free


def relaxation(atoms: Atoms, force: float) -> Iterator[Atoms]:
    """The atoms, step by step, until no force is above ``force`` (eV/Å); ``atoms`` is moved and given each time.

    Raises:
        RuntimeError: it takes too many steps.
    """
    optimizer = BFGS(atoms, logfile=None)
    for _ in optimizer.irun(fmax=force, steps=_MOST_STEPS):
        yield atoms
    if not _is_relaxed(atoms, force):
        raise RuntimeError(f"the relaxation did not reach {force} eV/Å in {_MOST_STEPS} steps")


def _is_relaxed(atoms: Atoms, force: float) -> bool:
    return bool(np.max(np.linalg.norm(atoms.get_forces(), axis=1), initial=0.0) <= force)


def dynamics(atoms: Atoms, settings: MD, generator: np.random.Generator) -> Iterator[Atoms]:
    """Frames of Langevin dynamics; ``atoms`` is moved and given each time."""
    spread = np.sqrt(atoms.get_masses() * units.kB * settings.temperature)[:, None]
    atoms.set_momenta(spread * generator.standard_normal((len(atoms), 3)))
    if not atoms.constraints and len(atoms) > 1:
        Stationary(atoms)
    options = {"temperature_K": settings.temperature, "friction": 1 / (_FRICTION_TIME * units.fs)}
    integrator = Langevin(atoms, _TIMESTEP * units.fs, fixcm=False, rng=generator, **options)
    steps = max(1, round(settings.interval / _TIMESTEP))
    for _ in range(settings.frames):
        for _ in integrator.irun(steps):
            if not np.isfinite(atoms.positions).all():
                raise RuntimeError("the dynamics exploded")
        yield atoms


def rattled(atoms: Atoms, settings: Rattle, generator: np.random.Generator) -> Iterator[Atoms]:
    """Copies whose free atoms are moved at random."""
    free = free_atoms(atoms)[:, None]
    for _ in range(settings.frames):
        yield _moved(atoms, settings.spread * free * generator.standard_normal((len(atoms), 3)))


def vibrations(atoms: Atoms, settings: Modes, generator: np.random.Generator) -> Iterator[Atoms]:
    """Copies displaced along the normal modes of a minimum, as a classical harmonic system at a temperature.

    Each normal coordinate Q of frequency ω is drawn from a normal distribution of variance kT/ω². A molecule neither
    moves as a whole nor turns.

    Raises:
        RuntimeError: a frequency is imaginary.

    Source:
        Smith, Isayev and Roitberg, Chem. Sci. 8, 3192 (2017), normal mode sampling. Differs: amplitudes are those of
        the Boltzmann distribution, not of a random division of the energy.
    """
    free = np.flatnonzero(free_atoms(atoms))
    weights = np.repeat(atoms.get_masses()[free], 3) ** -0.5  # [3n]
    matrix = hessian(atoms, free) * weights[:, None] * weights
    basis = np.linalg.qr(_rigid_motions(atoms, free) / weights[:, None])[0]  # [3n, 5 or 6]
    project = np.eye(len(weights)) - basis @ basis.T
    squares, modes = np.linalg.eigh(project @ matrix @ project)
    vibrating = np.linalg.norm(basis.T @ modes, axis=0) < 0.5  # the others are rigid motions
    squares, modes = squares[vibrating], modes[:, vibrating]
    if len(squares) and squares[0] < -(_IMAGINARY**2) * _SQUARE:
        frequency = np.sqrt(-squares[0] / _SQUARE)
        raise RuntimeError(f"the relaxed structure is no minimum: it has a frequency of {frequency:.0f}i cm⁻¹")
    spread = np.sqrt(units.kB * settings.temperature / np.maximum(squares, _SOFTEST**2 * _SQUARE))
    for _ in range(settings.frames):
        moves = np.zeros((len(atoms), 3))
        moves[free] = (weights * (modes @ (spread * generator.standard_normal(len(spread))))).reshape(-1, 3)
        yield _moved(atoms, moves)


def hessian(atoms: Atoms, free: NDArray[np.int64]) -> Real:
    """Second derivatives by the positions of the atoms ``free``, from central differences, [3n, 3n] eV/Å²."""
    columns = []
    for atom in free:
        for axis in range(3):
            forces = []
            for sign in (1, -1):
                moves = np.zeros((len(atoms), 3))
                moves[atom, axis] = sign * _DELTA
                moved = _moved(atoms, moves)
                moved.calc = atoms.calc
                forces.append(moved.get_forces(apply_constraint=False)[free].ravel())
            columns.append((forces[1] - forces[0]) / (2 * _DELTA))
    matrix: Real = np.array(columns).reshape(3 * len(free), 3 * len(free))
    return np.asarray((matrix + matrix.T) / 2)


def _rigid_motions(atoms: Atoms, free: NDArray[np.int64]) -> Real:
    """Displacements that change nothing, [3n, R]: of what is held none; of a molecule six, or five of a linear one."""
    if len(free) < len(atoms):
        return np.zeros((3 * len(free), 0))
    shifts = np.tile(np.eye(3), (len(atoms), 1))
    if atoms.pbc.any():
        return shifts
    offset = atoms.positions - atoms.get_center_of_mass()
    turns = np.stack([np.cross(axis, offset).ravel() for axis in np.eye(3)], axis=1)
    left, lengths, _ = np.linalg.svd(turns, full_matrices=False)
    return np.concatenate([shifts, left[:, lengths > 1e-4 * max(lengths.max(), 1.0)]], axis=1)


def _moved(atoms: Atoms, moves: Real) -> Atoms:
    found: Atoms = atoms.copy()
    found.positions += moves
    return found
