"""Complete state of a simulation after one step, for bit-exact restarts."""

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

__all__ = ["MDState"]


@dataclass(frozen=True)
class MDState:
    """State of a simulation after a step.

    Attributes:
        step: number of completed steps.
        positions: positions [N, 3] in Å.
        momenta: momenta [N, 3] in ASE's unit.
        cell: cell [3, 3] in Å.
        integrator: numbers of the integrator, including thermostat and barostat.
        generator: state of the random number generator, as JSON.
        results: results of the calculator; they are recomputed and not saved to a file.
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
        """Copy the state of a running simulation."""
        return cls(
            step,
            atoms.get_positions(),
            atoms.get_momenta(),
            atoms.cell.array.copy(),
            integrator_state(integrator),
            json.dumps(generator.bit_generator.state),
            {} if atoms.calc is None else dict(atoms.calc.results),
        )

    def restore_atoms(self, atoms: Atoms) -> None:
        """Set positions, momenta and cell of the atoms."""
        atoms.set_cell(self.cell, scale_atoms=False)
        atoms.set_positions(self.positions, apply_constraint=False)
        atoms.set_momenta(self.momenta, apply_constraint=False)

    def restore_integrator(self, integrator: Any, generator: np.random.Generator) -> None:
        """Set the state of the integrator and of the random number generator.

        Raises:
            CheckpointError: the state was written with another version of ASE.
        """
        restore_integrator(integrator, dict(self.integrator))
        generator.bit_generator.state = json.loads(self.generator)

    def to_state(self) -> dict[str, Any]:
        """Return tensors, numbers and text for ``geoeq.files.save_state``."""
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
        """Rebuild the state returned by ``to_state``."""
        positions, momenta, cell = (state[name].numpy() for name in ("positions", "momenta", "cell"))
        return cls(state["step"], positions, momenta, cell, state["integrator"], state["generator"], {})
