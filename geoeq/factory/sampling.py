"""Sample structures around a start: relaxation, molecular dynamics, random displacements and vibrations."""

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

#: Lowest frequency of sampled vibrations, cm⁻¹: softer modes would move too far in the harmonic approximation.
_SOFTEST = 50.0

#: Largest imaginary frequency that is attributed to round-off, cm⁻¹; the structure is not a minimum beyond it.
_IMAGINARY = 100.0

#: ω² of 1 cm⁻¹, in ASE's units, eV/Å²/amu.
_SQUARE = (units.invcm / (units._hbar * units.J * units.second)) ** 2

#: Largest force of a relaxed structure, and of a minimum whose vibrations are sampled, eV/Å.
RELAXED, MINIMUM = 0.05, 0.01


def free_atoms(atoms: Atoms) -> NDArray[np.bool_]:
    """Return which atoms are not constrained, [n]."""
    free = np.ones(len(atoms), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            free[constraint.index] = False
    return free


def relaxation(atoms: Atoms, force: float) -> Iterator[Atoms]:
    """Relax ``atoms`` in place until no force exceeds ``force`` (eV/Å), and yield it after each step.

    Raises:
        RuntimeError: the relaxation takes too many steps.
    """
    optimizer = BFGS(atoms, logfile=None)
    for _ in optimizer.irun(fmax=force, steps=_MOST_STEPS):
        yield atoms
    if not _is_relaxed(atoms, force):
        raise RuntimeError(f"the relaxation did not reach {force} eV/Å in {_MOST_STEPS} steps")


def _is_relaxed(atoms: Atoms, force: float) -> bool:
    return bool(np.max(np.linalg.norm(atoms.get_forces(), axis=1), initial=0.0) <= force)


def dynamics(atoms: Atoms, settings: MD, generator: np.random.Generator) -> Iterator[Atoms]:
    """Run Langevin dynamics in place, and yield ``atoms`` at each frame."""
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
    """Yield copies whose free atoms have random displacements."""
    free = free_atoms(atoms)[:, None]
    for _ in range(settings.frames):
        yield _moved(atoms, settings.spread * free * generator.standard_normal((len(atoms), 3)))


def vibrations(atoms: Atoms, settings: Modes, generator: np.random.Generator) -> Iterator[Atoms]:
    """Yield copies displaced along the normal modes of a minimum, like a classical harmonic system at a temperature.

    Each normal coordinate Q of frequency ω is drawn from a normal distribution of variance kT/ω². A molecule is neither
    translated nor rotated.

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
        raise RuntimeError(f"the relaxed structure is not a minimum: it has a frequency of {frequency:.0f}i cm⁻¹")
    spread = np.sqrt(units.kB * settings.temperature / np.maximum(squares, _SOFTEST**2 * _SQUARE))
    for _ in range(settings.frames):
        moves = np.zeros((len(atoms), 3))
        moves[free] = (weights * (modes @ (spread * generator.standard_normal(len(spread))))).reshape(-1, 3)
        yield _moved(atoms, moves)


def hessian(atoms: Atoms, free: NDArray[np.int64]) -> Real:
    """Return second derivatives with respect to the positions of the atoms ``free``, [3n, 3n] eV/Å²."""
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
    """Return the rigid motions [3n, R]: none with constraints, six of a molecule, five of a linear one."""
    if len(free) < len(atoms):
        return np.zeros((3 * len(free), 0))
    shifts = np.tile(np.eye(3), (len(atoms), 1))
    if atoms.pbc.any():
        return shifts
    offset = atoms.positions - atoms.get_center_of_mass()
    rotations = np.stack([np.cross(axis, offset).ravel() for axis in np.eye(3)], axis=1)
    left, lengths, _ = np.linalg.svd(rotations, full_matrices=False)
    return np.concatenate([shifts, left[:, lengths > 1e-4 * max(lengths.max(), 1.0)]], axis=1)


def _moved(atoms: Atoms, moves: Real) -> Atoms:
    copy: Atoms = atoms.copy()
    copy.positions += moves
    return copy
