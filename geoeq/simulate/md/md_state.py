"""All that a simulation is at one step, from which it goes on to the same bits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from geoeq.simulate.md.integrators import integrator_state, restore_integrator

__all__ = ["Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """A simulation after a step.

    Attributes:
        step: how many were done.
        positions: [N, 3] Å.
        momenta: [N, 3] in ASE's units.
        cell: [3, 3] Å.
        integrator: its numbers, those of thermostat and barostat among them.
        generator: the state of the random numbers, as JSON.
        results: what the calculator gave; not kept in a file, as it is computed again.
    """

    step: int
    positions: NDArray[np.float64]
    momenta: NDArray[np.float64]
    cell: NDArray[np.float64]
    integrator: Mapping[str, Any]
    generator: str
    results: Mapping[str, Any]

    @classmethod
    def take(cls, step: int, atoms: Atoms, integrator: Any, generator: np.random.Generator) -> Self:
        """Copy all of it."""
        return cls(
            step,
            atoms.get_positions(),
            atoms.get_momenta(),
            atoms.cell.array.copy(),
            integrator_state(integrator),
            json.dumps(generator.bit_generator.state),
            {} if atoms.calc is None else dict(atoms.calc.results),
        )

    def put_atoms(self, atoms: Atoms) -> None:
        """Move the atoms to where they were, with their momenta and cell."""
        atoms.set_cell(self.cell, scale_atoms=False)
        atoms.set_positions(self.positions, apply_constraint=False)
        atoms.set_momenta(self.momenta, apply_constraint=False)

    def put_integrator(self, integrator: Any, generator: np.random.Generator) -> None:
        """Give the integrator and the random numbers the state that they had.

        Raises:
            CheckpointError: it is that of another version of ASE.
        """
        restore_integrator(integrator, dict(self.integrator))
        generator.bit_generator.state = json.loads(self.generator)

    def to_state(self) -> dict[str, Any]:
        """Tensors, numbers and text, for ``geoeq.files.save_state``."""
        return {
            "step": self.step,
            "positions": torch.from_numpy(self.positions),
            "momenta": torch.from_numpy(self.momenta),
            "cell": torch.from_numpy(self.cell),
            "integrator": dict(self.integrator),
            "generator": self.generator,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """What ``to_state`` gave."""
        positions, momenta, cell = (state[name].numpy() for name in ("positions", "momenta", "cell"))
        return cls(state["step"], positions, momenta, cell, state["integrator"], state["generator"], {})
