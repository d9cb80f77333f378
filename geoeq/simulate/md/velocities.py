"""The velocities with which a simulation starts."""

from __future__ import annotations

from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.md.velocitydistribution import Stationary

from geoeq.errors import InputError

__all__ = ["start_velocities"]


def start_velocities(
    atoms: Atoms,
    temperature: float | None,
    generator: np.random.Generator,
    velocities: Literal["file", "random"] | None = None,
) -> str:
    """Give the atoms momenta, in place: those that they have, or random ones of a temperature.

    Random ones are of Maxwell and Boltzmann. Where all atoms are free their centre is then brought to rest, and the
    temperature to what it was before.

    Args:
        atoms: the structure; atoms that a constraint holds stay where they are.
        temperature: in K; None where it has momenta.
        generator: of random numbers.
        velocities: "file", "random", or None for those of the structure where it has some.

    Returns:
        Where they come from, in words.

    Raises:
        InputError: there are no momenta and no temperature.
    """
    if velocities == "file" and not atoms.has("momenta"):
        raise InputError("The structure has no velocities: take random ones, at a temperature.")
    if velocities != "random" and atoms.has("momenta"):
        return f"those of the structure ({atoms.get_temperature():.0f} K)"
    if temperature is None:
        raise InputError("The structure has no velocities: give a temperature, and they are drawn at random.")
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(spread * generator.standard_normal((len(atoms), 3)))
    if len(atoms) > 1 and not atoms.constraints:
        Stationary(atoms)
    return f"drawn at {temperature:g} K (these are of {atoms.get_temperature():.0f} K)"
