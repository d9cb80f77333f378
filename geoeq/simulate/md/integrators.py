"""ASE's integrators: which one a simulation takes, and all the numbers that one holds."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import ase
import numpy as np
import torch
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from geoeq.errors import CheckpointError, InputError
from geoeq.simulate.md.settings import MDSettings

__all__ = ["integrator_state", "make_integrator", "restore_integrator"]


def make_integrator(atoms: Atoms, settings: MDSettings, generator: np.random.Generator) -> Any:
    """The integrator of ASE for these settings.

    Args:
        atoms: with a calculator, and with momenta where they move.
        settings: the simulation.
        generator: of random numbers, for thermostats that take some.

    Raises:
        InputError: the structure cannot be simulated so (constraints with a chain, a pressure without a volume), or
            the installed ASE lacks the integrator.
    """
    timestep, tau = settings.timestep * units.fs, settings.tau * units.fs
    if settings.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    options: dict[str, Any] = {"temperature_K": settings.temperature}
    if settings.coupling == "langevin":
        return Langevin(atoms, timestep, friction=1 / tau, fixcm=False, rng=generator, **options)
    if settings.coupling == "bussi":
        if atoms.get_kinetic_energy() == 0:
            raise InputError("The thermostat bussi scales velocities, and all are zero: draw some (velocities random).")
        return _class("bussi", "Bussi")(atoms, timestep, taut=tau, rng=generator, **options)
    if atoms.constraints:
        raise InputError(
            "The thermostat nose-hoover (which npt has too) moves all atoms, and the structure holds some fixed: free "
            "them, or take nvt with langevin or bussi."
        )
    if settings.ensemble == "nvt":
        return _class("nose_hoover_chain", "NoseHooverChainNVT")(atoms, timestep, tdamp=tau, **options)
    if not atoms.pbc.all():
        raise InputError("npt changes the volume: the structure must be periodic in three directions. Choose nvt.")
    cls = _class("nose_hoover_chain", "MTKNPT" if settings.barostat == "full" else "IsotropicMTKNPT")
    pdamp = settings.pressure_tau * units.fs
    return cls(atoms, timestep, pressure_au=settings.pressure, tdamp=tau, pdamp=pdamp, **options)


def _class(module: str, name: str) -> Any:
    try:
        return getattr(importlib.import_module(f"ase.md.{module}"), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"ASE {ase.__version__} has no {name}: install a newer one (pip install -U ase).") from error


def integrator_state(integrator: Any) -> dict[str, Any]:
    """All numbers and arrays that an integrator of ASE holds, by their place in it.

    ASE has no way to save one: thermostat and barostat variables are found as what pickling would take,
    ``vars``, of the integrator and of the parts of it that are ASE's too.
    """
    return {
        place: torch.tensor(value) if isinstance(value, np.ndarray) else value for place, value in _walk(integrator)
    }


def restore_integrator(integrator: Any, state: dict[str, Any]) -> None:
    """Put a state into an integrator that was made with the same settings.

    Raises:
        CheckpointError: it holds numbers of which the state says nothing, as after a change of ASE.
    """
    absent = {place for place, _ in _walk(integrator)} - set(state)
    if absent:
        raise CheckpointError(
            f"The state does not hold {', '.join(sorted(absent))} of {type(integrator).__name__}: it was written with "
            "another version of ASE. Finish the run with that version."
        )
    for place, value in state.items():
        *parts, name = place.split(".")
        holder = integrator
        for part in parts:
            holder = getattr(holder, part)
        setattr(holder, name, value.numpy().copy() if isinstance(value, torch.Tensor) else value)


def _walk(part: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in vars(part).items():
        if isinstance(value, np.ndarray):
            yield prefix + name, value
        elif isinstance(value, (bool, int, float, np.number)):
            yield prefix + name, value.item() if isinstance(value, np.number) else value
        elif type(value).__module__.startswith("ase.md."):
            yield from _walk(value, f"{prefix}{name}.")
