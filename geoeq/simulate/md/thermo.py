"""The log of a simulation: energies, temperature, pressure and speed, a row now and then; and a frame as text."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_xyz

from geoeq.simulate.md.settings import MDSettings

__all__ = [
    "CONSERVED",
    "KINETIC",
    "OF_FORCES",
    "POTENTIAL",
    "PRESSURE",
    "SPEED",
    "TEMPERATURE",
    "TIME",
    "TOTAL",
    "UNCERTAIN",
    "UNCERTAINTY",
    "VOLUME",
    "frame_text",
    "measure",
]

#: Results of a calculator that knows how wrong it may be, eV and eV/Å.
UNCERTAIN, OF_FORCES = "energy_uncertainty", "forces_uncertainty"

TIME, SPEED = "time [fs]", "ns/day"
POTENTIAL, KINETIC, TOTAL = (f"{name} energy [eV/atom]" for name in ("potential", "kinetic", "total"))
UNCERTAINTY = "energy uncertainty [eV/atom]"
CONSERVED = "conserved energy [eV/atom]"
TEMPERATURE, PRESSURE, VOLUME = "temperature [K]", "pressure [GPa]", "volume [Å^3/atom]"


def measure(atoms: Atoms, integrator: Any, settings: MDSettings, step: int) -> dict[str, float]:
    """What a row of the log holds, but for the speed.

    The pressure has the part of the moving atoms in it and is positive where the structure wants to grow; it is there
    where the calculator gives a stress. The conserved energy is that of integrators which have one (chains, and npt).
    """
    count = len(atoms)
    potential, kinetic = atoms.get_potential_energy() / count, atoms.get_kinetic_energy() / count
    row = {
        "step": step,
        TIME: step * settings.timestep,
        POTENTIAL: potential,
        KINETIC: kinetic,
        TOTAL: potential + kinetic,
    }
    if hasattr(integrator, "get_conserved_energy"):
        row[CONSERVED] = integrator.get_conserved_energy() / count
    row[TEMPERATURE] = atoms.get_temperature()
    if atoms.calc is not None and "stress" in atoms.calc.results:
        row[PRESSURE] = -atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.GPa
    if atoms.calc is not None and UNCERTAIN in atoms.calc.results:
        row[UNCERTAINTY] = atoms.calc.results[UNCERTAIN] / count
    if settings.ensemble == "npt":
        row[VOLUME] = atoms.get_volume() / count
    return row


def frame_text(atoms: Atoms, results: Mapping[str, Any], step: int, settings: MDSettings) -> str:
    """A frame in extended XYZ: positions, momenta, what the model gives with its uncertainty, step and time."""
    frame = atoms.copy()
    frame.info = {"step": step, "time_fs": step * settings.timestep}
    for name in results:
        frame.arrays.pop(name, None)
    frame.calc = SinglePointCalculator(frame, **{name: value for name, value in results.items() if name in _WRITTEN})
    if UNCERTAIN in results:
        frame.info[UNCERTAIN] = results[UNCERTAIN]
    if OF_FORCES in results:
        frame.set_array(OF_FORCES, results[OF_FORCES])
    text = io.StringIO()
    write_xyz(text, [frame])
    return text.getvalue()


#: Results that a frame keeps; the free energy of a potential is its energy.
_WRITTEN = ("energy", "forces", "stress", "dipole", "charges", "energies", "magmom", "magmoms")
