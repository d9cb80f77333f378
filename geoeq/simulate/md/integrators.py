"""Initial velocities and ASE's integrators: choose one, save and restore its complete state."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, Literal

import ase
import numpy as np
import torch
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from geoeq.errors import CheckpointError, InputError
from geoeq.simulate.md.settings import MDSettings

__all__ = ["integrator_state", "make_integrator", "restore_integrator", "start_velocities"]


def start_velocities(
    atoms: Atoms,
    temperature: float | None,
    generator: np.random.Generator,
    velocities: Literal["file", "random"] | None = None,
) -> str:
    """Set the initial momenta in place: those of the structure, or random ones at a temperature.

    Random momenta follow the Maxwell-Boltzmann distribution. If no atom is constrained, the centre of mass is then
    brought to rest and the temperature restored.

    Args:
        atoms: structure; constrained atoms stay at rest.
        temperature: temperature in K; None if the structure has momenta.
        generator: random number generator.
        velocities: "file", "random", or None to use those of the structure if it has any.

    Returns:
        The origin of the velocities, in words.

    Raises:
        InputError: there are no momenta and no temperature.
    """
    if velocities == "file" and not atoms.has("momenta"):
        raise InputError("The structure has no velocities: use random ones at a temperature.")
    if velocities != "random" and atoms.has("momenta"):
        return f"from the structure ({atoms.get_temperature():.0f} K)"
    if temperature is None:
        raise InputError("The structure has no velocities: specify a temperature for random ones.")
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(spread * generator.standard_normal((len(atoms), 3)))
    if len(atoms) > 1 and not atoms.constraints:
        Stationary(atoms)
    return f"random at {temperature:g} K (this sample: {atoms.get_temperature():.0f} K)"


def make_integrator(atoms: Atoms, settings: MDSettings, generator: np.random.Generator) -> Any:
    """Return the ASE integrator for these settings.

    Args:
        atoms: structure with a calculator, and with momenta if the atoms move.
        settings: settings of the simulation.
        generator: random number generator of stochastic thermostats.

    Raises:
        InputError: the structure does not fit the settings (constraints with a chain, a pressure without a volume), or
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
            raise InputError(
                "The thermostat bussi rescales velocities, and all are zero: use random ones (velocities random)."
            )
        return _class("bussi", "Bussi")(atoms, timestep, taut=tau, rng=generator, **options)
    if atoms.constraints:
        raise InputError(
            "The thermostat nose-hoover (also used by npt) moves all atoms, and the structure has constraints: remove "
            "them, or use nvt with langevin or bussi."
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
    """Return all numbers and arrays of an ASE integrator, by their attribute path.

    ASE cannot save an integrator. Thermostat and barostat variables are found as pickling would find them: ``vars`` of
    the integrator and of its parts that are also ASE's.
    """
    return {path: torch.tensor(value) if isinstance(value, np.ndarray) else value for path, value in _walk(integrator)}


def restore_integrator(integrator: Any, state: dict[str, Any]) -> None:
    """Restore a state into an integrator created with the same settings.

    Raises:
        CheckpointError: the integrator holds numbers that the state lacks, as after a change of ASE.
    """
    absent = {path for path, _ in _walk(integrator)} - set(state)
    if absent:
        raise CheckpointError(
            f"The state lacks {', '.join(sorted(absent))} of {type(integrator).__name__}: it was written with another "
            "version of ASE. Finish the run with that version."
        )
    for path, value in state.items():
        *parts, name = path.split(".")
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
