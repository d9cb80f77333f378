"""Log rows and trajectory frames of a simulation."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_xyz

from geoeq.simulate.md.settings import MDSettings

__all__ = [
    "CONSERVED",
    "ENERGY_UNCERTAINTY",
    "FORCES_UNCERTAINTY",
    "KINETIC",
    "POTENTIAL",
    "PRESSURE",
    "SPEED",
    "TEMPERATURE",
    "TIME",
    "TOTAL",
    "UNCERTAINTY",
    "VOLUME",
    "frame_text",
    "measure",
    "with_deviation",
]

#: Calculator results of models with an uncertainty, in eV and eV/Å.
ENERGY_UNCERTAINTY, FORCES_UNCERTAINTY = "energy_uncertainty", "forces_uncertainty"

#: Columns of the log.
TIME, SPEED = "time [fs]", "ns/day"
POTENTIAL, KINETIC, TOTAL = (f"{name} energy [eV/atom]" for name in ("potential", "kinetic", "total"))
UNCERTAINTY = "energy uncertainty [eV/atom]"
CONSERVED = "conserved energy [eV/atom]"
TEMPERATURE, PRESSURE, VOLUME = "temperature [K]", "pressure [GPa]", "volume [Å^3/atom]"

#: Calculator results that a frame keeps; the free energy of a potential equals its energy.
_KEPT = ("energy", "forces", "stress", "dipole", "charges", "energies", "magmom", "magmoms")


def measure(atoms: Atoms, integrator: Any, settings: MDSettings, step: int) -> dict[str, float]:
    """Return one row of the log, except for the speed.

    The pressure includes the kinetic part and is positive if the structure tends to expand; it is present if the
    calculator computes a stress. The conserved energy is present for integrators that have one (chains and npt).
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
    if atoms.calc is not None and ENERGY_UNCERTAINTY in atoms.calc.results:
        row[UNCERTAINTY] = atoms.calc.results[ENERGY_UNCERTAINTY] / count
    if settings.ensemble == "npt":
        row[VOLUME] = atoms.get_volume() / count
    return row


def frame_text(atoms: Atoms, results: Mapping[str, Any], step: int, settings: MDSettings) -> str:
    """Format a frame as extended XYZ: positions, momenta, results with uncertainties, step and time."""
    frame = atoms.copy()
    frame.info = {"step": step, "time_fs": step * settings.timestep}
    for name in results:
        frame.arrays.pop(name, None)
    frame.calc = SinglePointCalculator(frame, **{name: value for name, value in results.items() if name in _KEPT})
    if ENERGY_UNCERTAINTY in results:
        frame.info[ENERGY_UNCERTAINTY] = results[ENERGY_UNCERTAINTY]
    if FORCES_UNCERTAINTY in results:
        frame.set_array(FORCES_UNCERTAINTY, results[FORCES_UNCERTAINTY])
    text = io.StringIO()
    write_xyz(text, [frame])
    return text.getvalue()


def with_deviation(mean: float, deviation: float | None) -> str:
    """Format a mean with as many digits as its standard deviation justifies: 299.8 ± 4.2; None is unknown."""
    if deviation is None:
        return f"{mean:.6g} (one record, no deviation)"
    if not deviation > 1e-6 * abs(mean):
        return f"{mean:.6g} ± {deviation:.1g}"
    decimals = max(0, 1 - math.floor(math.log10(deviation)))
    mean = round(mean, decimals) + 0.0  # no negative zero
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"
