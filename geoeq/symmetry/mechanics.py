"""Check energies, forces and stresses against finite differences and in a short simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.data.structures import to_atoms
from geoeq.geometry.groups import named_output, relative_error
from geoeq.symmetry.calculators import to_calculator
from geoeq.symmetry.invariance import Measured
from geoeq.symmetry.subject import Subject

__all__ = ["derivatives", "energy_drift", "forces", "stress"]

#: Number of random directions in which structures are distorted.
DIRECTIONS = 4
#: Steps of finite differences, in Å or without unit (strain); the best one counts.
STEPS = {torch.float64: (1e-3, 2e-4), torch.float32: (4e-2, 1e-2)}
#: Simulation: number of steps, time step in fs, initial temperature in K.
NUM_STEPS, STEP, TEMPERATURE = 50, 0.25, 300.0


def _difference(values: Callable[[float], Tensor], step: float) -> Tensor:
    """Differentiate at zero, to fourth order in the step."""
    near = (values(step) - values(-step)) / (2 * step)
    far = (values(2 * step) - values(-2 * step)) / (4 * step)
    return (4 * near - far) / 3


def _along(subject: Subject, batch: Batch, name: str, direction: Tensor, step: float) -> Tensor:
    """Differentiate an output along a direction [N, 3] of all atoms by finite differences, [G]."""

    def value(step: float) -> Tensor:
        moved = batch.clone()
        moved.pos = batch.pos + step * direction
        with torch.no_grad():
            return subject.function(moved)[name].reshape(batch.num_graphs, -1).sum(-1)

    return _difference(value, step)


def _compare(subject: Subject, name: str, gradient: Callable[[Batch], Tensor], seed: int) -> float:
    """Return the error of a gradient [N, 3] of an output, relative to its largest derivative."""
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for batch in subject.batches:
        computed = gradient(batch)
        for _ in range(DIRECTIONS):
            direction = torch.randn(batch.pos.shape, generator=generator, dtype=torch.float64).to(batch.pos)
            sums = torch.zeros(batch.num_graphs, dtype=batch.pos.dtype)
            projected = sums.index_add(0, batch.batch, (computed * direction).sum(-1))
            steps = STEPS[subject.precision]
            errors = [relative_error(projected, _along(subject, batch, name, direction, step)) for step in steps]
            worst = max(worst, min(errors))
    return worst


def forces(subject: Subject, seed: int) -> Measured | str:
    """Compare forces with finite differences of the energy."""
    if not {"energy", "forces"} <= set(subject.names):
        return "it does not predict both energy and forces"
    if not subject.conservative:
        return "its forces are predicted directly and do not claim to be the derivative of its energy"

    def gradient(batch: Batch) -> Tensor:
        with torch.no_grad():
            return -subject.function(batch)["forces"]

    return Measured({"forces": _compare(subject, "energy", gradient, seed)})


def derivatives(subject: Subject, seed: int) -> Measured | str:
    """Compare PyTorch's derivatives of graph-level scalars by the positions with finite differences."""
    if subject.calculator:
        return "an ASE calculator is not differentiable"
    if not subject.scalars:
        return "it has no graph-level scalar output"
    if not subject.differentiable:
        return "its outputs cannot be differentiated by data.pos"
    errors = {}
    for name in subject.scalars:

        def gradient(batch: Batch, name: str = name) -> Tensor:
            return subject.gradients(batch, name)

        errors[f"d {name}"] = _compare(subject, name, gradient, seed)
    return Measured(errors)


def stress(subject: Subject, seed: int) -> Measured | str:
    """Compare the stress with finite differences of the energy by strain, per volume: ASE's sign, in eV/Å^3."""
    batch = subject.crystals
    if batch is None:
        return "it was not tested on structures periodic in all directions"
    with torch.no_grad():
        outputs = subject.function(batch)
    if not {"energy", "stress"} <= set(outputs):
        return "it does not predict both energy and stress"
    predicted = named_output("stress", outputs["stress"]).value  # [G, 3, 3]
    volume = torch.linalg.det(batch.cell.reshape(-1, 3, 3)).abs()
    errors = [
        relative_error(predicted, _by_strain(subject, batch, step) / volume[:, None, None])
        for step in STEPS[subject.precision]
    ]
    return Measured({"stress": min(errors)})


def _by_strain(subject: Subject, batch: Batch, step: float) -> Tensor:
    """Differentiate the energy by each component of a symmetric strain, [G, 3, 3]."""
    cell = batch.cell.reshape(-1, 3, 3)
    derivative = torch.zeros_like(cell)
    for row in range(3):
        for column in range(row + 1):

            def energy(size: float, row: int = row, column: int = column) -> Tensor:
                strain = torch.eye(3, dtype=cell.dtype)
                strain[row, column] += size / 2
                strain[column, row] += size / 2
                moved = batch.clone()
                moved.pos, moved.cell = batch.pos @ strain, cell @ strain
                with torch.no_grad():
                    return subject.function(moved)["energy"].reshape(-1)

            derivative[:, row, column] = derivative[:, column, row] = _difference(energy, step)
    return derivative


def energy_drift(subject: Subject, seed: int) -> Measured | str:
    """Measure the drift of the total energy in a short simulation without thermostat, in eV/atom/ps.

    The error of the integrator is quadratic in its time step. Two simulations, one with half the step, are extrapolated
    to a step of zero, which leaves the drift due to the forces.
    """
    if "energy" not in subject.names:
        return "it predicts no energy"
    if "forces" in subject.names and not subject.conservative:
        return "its forces are predicted directly and do not claim to conserve the energy"
    if "forces" not in subject.names and not subject.differentiable:
        return "it predicts no forces, and its energy cannot be differentiated"
    long, short = (_total_energies(subject, parts, seed) for parts in (1, 2))
    if not (math.isfinite(sum(long)) and math.isfinite(sum(short))):
        return Measured({"energy": float("inf")}, "the total energy is not finite")
    time = NUM_STEPS * STEP * 1e-3  # ps
    drift = max(abs(4 * (b - short[0]) - (a - long[0])) / 3 for a, b in zip(long, short)) / time
    plain = max(abs(b - short[0]) for b in short) / time
    return Measured({"energy": drift}, f"{plain:.1e} eV/atom/ps with steps of {STEP / 2} fs")


def _total_energies(subject: Subject, parts: int, seed: int) -> list[float]:
    """Return the energy per atom after each step, divided into ``parts`` integration steps."""
    from ase import units
    from ase.md.verlet import VelocityVerlet
    from numpy.random import default_rng

    data = max((subject.molecules or subject.batches[0]).to_data_list(), key=lambda graph: graph.num_nodes)
    atoms = to_atoms(data)
    atoms.calc = to_calculator(subject.energy_and_forces, data)
    masses = atoms.get_masses()[:, None]
    momenta = default_rng(seed).normal(size=(len(atoms), 3)) * (masses * units.kB * TEMPERATURE) ** 0.5
    atoms.set_momenta(momenta - masses * momenta.sum(0) / masses.sum())  # no motion of the centre of mass
    simulation = VelocityVerlet(atoms, timestep=STEP / parts * units.fs)
    energies = [atoms.get_total_energy() / len(atoms)]
    for _ in range(NUM_STEPS):
        simulation.run(parts)
        energies.append(atoms.get_total_energy() / len(atoms))
    return energies
