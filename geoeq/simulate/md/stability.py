"""When a simulation is no longer one: its bounds, and what is said where they are passed."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from geoeq.errors import SimulationError
from geoeq.simulate.md.settings import MDSettings

__all__ = ["FARTHEST", "GROWTH", "SWELLING", "Guard"]

#: In Å: no atom may move farther in one step.
FARTHEST = 1.0

#: In Å: what is not periodic may become so much wider than it was.
GROWTH = 100.0

#: A cell may become so many times as large, or as small, as it was.
SWELLING = 10.0

_REMEDY = (
    "Take a shorter timestep, relax the structure first, or ask whether the model knows such structures (geoeq check "
    "says whether its forces are right)."
)


class Guard:
    """Looks at every step: numbers are finite, the temperature below its bound, and the atoms together.

    Args:
        atoms: the structure at its start.
        settings: of the simulation.
    """

    def __init__(self, atoms: Atoms, settings: MDSettings) -> None:
        self._settings = settings
        self._open = _open_directions(atoms)
        self._extent = self._width(atoms)
        self._volume = _volume(atoms)

    def check_finite(self, atoms: Atoms) -> None:
        """Raise where energy, forces or momenta are not finite.

        Raises:
            SimulationError: they are not.
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
        """Raise where the structure explodes.

        Raises:
            SimulationError: it is too hot, an atom too fast, the atoms have flown apart, or the cell with them.
        """
        temperature, bound = atoms.get_temperature(), self._settings.hottest
        if temperature > bound:
            raise SimulationError(
                f"The temperature is {temperature:.0f} K, above the bound of {bound:.0f} K (max_temperature). {_REMEDY}"
            )
        moves = np.linalg.norm(atoms.get_velocities(), axis=1) * self._settings.timestep * units.fs
        if moves.max(initial=0.0) > FARTHEST:
            atom = int(moves.argmax())
            raise SimulationError(
                f"Atom {atom} ({atoms.symbols[atom]}) moves by {moves[atom]:.2f} Å in one step, and more than "
                f"{FARTHEST:g} Å is no motion that a step can follow. {_REMEDY}"
            )
        growth = self._width(atoms) - self._extent
        if growth > GROWTH:
            raise SimulationError(
                f"The atoms have flown apart: they extend over {growth:.0f} Å more than at the start (bound "
                f"{GROWTH:g} Å). {_REMEDY}"
            )

        change = _volume(atoms) / self._volume
        if not 1 / SWELLING < change < SWELLING:
            raise SimulationError(
                f"The cell is {change:.3g} times as large as at the start (bounds 1/{SWELLING:g} and {SWELLING:g}). "
                f"{_REMEDY}"
            )

    def _width(self, atoms: Atoms) -> float:
        if not self._open.any() or len(atoms) == 0:
            return 0.0
        return float(np.ptp(atoms.positions @ self._open, axis=0).max())


def _volume(atoms: Atoms) -> float:
    return float(atoms.get_volume()) if atoms.pbc.all() else 1.0


def _open_directions(atoms: Atoms) -> NDArray[np.float64]:
    """The projection [3, 3] onto the directions across the periodic ones."""
    periodic = atoms.cell.array[atoms.pbc]
    across: NDArray[np.float64] = np.eye(3) - np.linalg.pinv(periodic) @ periodic
    return np.where(np.abs(across) < 1e-9, 0.0, across)
