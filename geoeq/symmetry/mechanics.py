"""Checks of energies, forces and stresses against finite differences, and of what they do in a simulation."""

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
from geoeq.symmetry.subject import Candidate

__all__ = ["derivatives", "energy_drift", "forces", "stress"]

#: directions in which structures are distorted.
DIRECTIONS = 4
#: steps of finite differences, in Å or without unit (strain): the best one counts.
STEPS = {torch.float64: (1e-3, 2e-4), torch.float32: (4e-2, 1e-2)}
#: of the simulation: its steps, their length in fs, the temperature of its start in K.
NUM_STEPS, STEP, TEMPERATURE = 50, 0.25, 300.0

Energies = Callable[[Batch], dict[str, Tensor]]


def _difference(values: Callable[[float], Tensor], step: float) -> Tensor:
    """The derivative at zero, to the fourth order in the step."""
    near = (values(step) - values(-step)) / (2 * step)
    far = (values(2 * step) - values(-2 * step)) / (4 * step)
    return (4 * near - far) / 3


def _along(candidate: Candidate, batch: Batch, name: str, direction: Tensor, step: float) -> Tensor:
    """Derivative of an output as all atoms move along a direction [N, 3], by finite differences, [G]."""

    def value(step: float) -> Tensor:
        moved = batch.clone()
        moved.pos = batch.pos + step * direction
        with torch.no_grad():
            return candidate.function(moved)[name].reshape(batch.num_graphs, -1).sum(-1)

    return _difference(value, step)


def _compare(candidate: Candidate, name: str, gradient: Callable[[Batch], Tensor], seed: int) -> float:
    """Error of a gradient [N, 3] of an output, relative to its largest derivative."""
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for batch in candidate.batches:
        computed = gradient(batch)
        for _ in range(DIRECTIONS):
            direction = torch.randn(batch.pos.shape, generator=generator, dtype=torch.float64).to(batch.pos)
            sums = torch.zeros(batch.num_graphs, dtype=batch.pos.dtype)
            found = sums.index_add(0, batch.batch, (computed * direction).sum(-1))
            steps = STEPS[candidate.precision]
            errors = [relative_error(found, _along(candidate, batch, name, direction, step)) for step in steps]
            worst = max(worst, min(errors))
    return worst


def forces(candidate: Candidate, seed: int) -> Measured | str:
    """Forces against minus the finite differences of the energy."""
    if not {"energy", "forces"} <= set(candidate.names):
        return "it does not give both energy and forces"
    if not candidate.conservative:
        return "its forces are an output of their own and do not claim to be the derivative of its energy"

    def gradient(batch: Batch) -> Tensor:
        with torch.no_grad():
            return -candidate.function(batch)["forces"]

    return Measured({"forces": _compare(candidate, "energy", gradient, seed)})


def derivatives(candidate: Candidate, seed: int) -> Measured | str:
    """Derivatives of numbers of a graph by the positions, as PyTorch gives them, against finite differences."""
    if candidate.calculator:
        return "a calculator of ASE is not differentiable"
    if not candidate.scalars:
        return "no output is a number for a graph"
    if not candidate.differentiable:
        return "its outputs carry no derivatives by data.pos"
    errors = {}
    for name in candidate.scalars:

        def gradient(batch: Batch, name: str = name) -> Tensor:
            return candidate.gradients(batch, name)

        errors[f"d {name}"] = _compare(candidate, name, gradient, seed)
    return Measured(errors)


def stress(candidate: Candidate, seed: int) -> Measured | str:
    """Stress against finite differences of the energy by strain, per volume: ASE's sign, in eV/Å^3."""
    batch = candidate.crystals
    if batch is None:
        return "it is not tried on structures that are periodic in all directions"
    with torch.no_grad():
        outputs = candidate.function(batch)
    if not {"energy", "stress"} <= set(outputs):
        return "it does not give both energy and stress"
    given = named_output("stress", outputs["stress"]).value  # [G, 3, 3]
    volume = torch.linalg.det(batch.cell.reshape(-1, 3, 3)).abs()
    errors = [
        relative_error(given, _by_strain(candidate, batch, step) / volume[:, None, None])
        for step in STEPS[candidate.precision]
    ]
    return Measured({"stress": min(errors)})


def _by_strain(candidate: Candidate, batch: Batch, step: float) -> Tensor:
    """Derivative of the energy by each component of a symmetric strain, [G, 3, 3]."""
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
                    return candidate.function(moved)["energy"].reshape(-1)

            derivative[:, row, column] = derivative[:, column, row] = _difference(energy, step)
    return derivative


def energy_drift(candidate: Candidate, seed: int) -> Measured | str:
    """Drift of the total energy in a short simulation without thermostat, in eV/atom/ps.

    The error of the integrator falls as the square of its step: of two simulations, one with half the step, the drift
    at a step of zero is taken, which is that of the forces alone.
    """
    if "energy" not in candidate.names:
        return "it gives no energy"
    if "forces" in candidate.names and not candidate.conservative:
        return "its forces are an output of their own and do not claim to conserve the energy"
    if "forces" not in candidate.names and not candidate.differentiable:
        return "it gives no forces, and its energy carries no derivatives"
    long, short = (_total_energies(candidate, parts, seed) for parts in (1, 2))
    if not (math.isfinite(sum(long)) and math.isfinite(sum(short))):
        return Measured({"energy": float("inf")}, "the total energy is not finite")
    time = NUM_STEPS * STEP * 1e-3  # ps
    drift = max(abs(4 * (b - short[0]) - (a - long[0])) / 3 for a, b in zip(long, short)) / time
    plain = max(abs(b - short[0]) for b in short) / time
    return Measured({"energy": drift}, f"{plain:.1e} eV/atom/ps with steps of {STEP / 2} fs")


def _total_energies(candidate: Candidate, parts: int, seed: int) -> list[float]:
    """Energy of each atom after each step, where a step is taken in ``parts``."""
    from ase import units
    from ase.md.verlet import VelocityVerlet
    from numpy.random import default_rng

    data = max((candidate.molecules or candidate.batches[0]).to_data_list(), key=lambda graph: graph.num_nodes)
    atoms = to_atoms(data)
    atoms.calc = to_calculator(candidate.energy_and_forces, data)
    masses = atoms.get_masses()[:, None]
    momenta = default_rng(seed).normal(size=(len(atoms), 3)) * (masses * units.kB * TEMPERATURE) ** 0.5
    atoms.set_momenta(momenta - masses * momenta.sum(0) / masses.sum())  # the centre of mass rests
    simulation = VelocityVerlet(atoms, timestep=STEP / parts * units.fs)
    energies = [atoms.get_total_energy() / len(atoms)]
    for _ in range(NUM_STEPS):
        simulation.run(parts)
        energies.append(atoms.get_total_energy() / len(atoms))
    return energies
