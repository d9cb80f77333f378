"""Stability checks: stop a simulation that has exploded, with an explanation."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from geoeq.errors import SimulationError
from geoeq.simulate.md.settings import MDSettings

__all__ = ["LARGEST_GROWTH", "LARGEST_STEP", "LARGEST_VOLUME_CHANGE", "StabilityCheck"]

#: Largest displacement of an atom in one step, in Å.
LARGEST_STEP = 1.0

#: Largest growth of the structure's extent in open directions, in Å.
LARGEST_GROWTH = 100.0

#: Largest factor by which the volume of the cell may grow or shrink.
LARGEST_VOLUME_CHANGE = 10.0

_REMEDY = (
    "Use a shorter timestep, relax the structure first, or verify that the model was trained on such structures "
    "(geoeq check tests its forces)."
)


class StabilityCheck:
    """Check after every step: numbers are finite, the temperature is bounded, and the atoms stay together.

    Args:
        atoms: initial structure.
        settings: settings of the simulation.
    """

    def __init__(self, atoms: Atoms, settings: MDSettings) -> None:
        self._settings = settings
        self._open = _open_directions(atoms)
        self._extent = self._width(atoms)
        self._volume = _volume(atoms)

    def check_finite(self, atoms: Atoms) -> None:
        """Check energy, forces and momenta for NaN and infinity.

        Raises:
            SimulationError: a value is not finite.
        """
        forces = atoms.get_forces()
        if not np.isfinite(forces).all():
            atom = int(np.flatnonzero(~np.isfinite(forces).all(1))[0])
            raise SimulationError(f"The force on atom {atom} is {forces[atom].tolist()}. {_REMEDY}")
        energy = atoms.get_potential_energy()
        if not np.isfinite(energy):
            raise SimulationError(f"The energy is {energy}. {_REMEDY}")
        if not np.isfinite(atoms.get_momenta()).all():
            raise SimulationError(f"The momenta are not finite. {_REMEDY}")

    def check_bounds(self, atoms: Atoms) -> None:
        """Check temperature, displacements, extent and volume.

        Raises:
            SimulationError: the structure is too hot, an atom too fast, the atoms have flown apart, or the cell has
                expanded or collapsed.
        """
        temperature, bound = atoms.get_temperature(), self._settings.hottest
        if temperature > bound:
            raise SimulationError(
                f"The temperature is {temperature:.0f} K, above the bound of {bound:.0f} K (max_temperature). {_REMEDY}"
            )
        steps = np.linalg.norm(atoms.get_velocities(), axis=1) * self._settings.timestep * units.fs
        if steps.max(initial=0.0) > LARGEST_STEP:
            atom = int(steps.argmax())
            raise SimulationError(
                f"Atom {atom} ({atoms.symbols[atom]}) moves by {steps[atom]:.2f} Å in one step; more than "
                f"{LARGEST_STEP:g} Å cannot be integrated. {_REMEDY}"
            )
        growth = self._width(atoms) - self._extent
        if growth > LARGEST_GROWTH:
            raise SimulationError(
                f"The atoms have flown apart: they extend over {growth:.0f} Å more than at the start (bound "
                f"{LARGEST_GROWTH:g} Å). {_REMEDY}"
            )
        change = _volume(atoms) / self._volume
        if not 1 / LARGEST_VOLUME_CHANGE < change < LARGEST_VOLUME_CHANGE:
            raise SimulationError(
                f"The cell is {change:.3g} times as large as at the start (bounds 1/{LARGEST_VOLUME_CHANGE:g} and "
                f"{LARGEST_VOLUME_CHANGE:g}). {_REMEDY}"
            )

    def _width(self, atoms: Atoms) -> float:
        if not self._open.any() or len(atoms) == 0:
            return 0.0
        return float(np.ptp(atoms.positions @ self._open, axis=0).max())


def _volume(atoms: Atoms) -> float:
    return float(atoms.get_volume()) if atoms.pbc.all() else 1.0


def _open_directions(atoms: Atoms) -> NDArray[np.float64]:
    """Return the projection [3, 3] onto the directions perpendicular to the periodic ones."""
    periodic = atoms.cell.array[atoms.pbc]
    across: NDArray[np.float64] = np.eye(3) - np.linalg.pinv(periodic) @ periodic
    return np.where(np.abs(across) < 1e-9, 0.0, across)
