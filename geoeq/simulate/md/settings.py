"""Settings of a simulation: ensemble, temperature, steps and output intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from geoeq.errors import FieldError, InputError, unknown_name
from geoeq.units import parse_quantity

__all__ = ["Barostat", "Ensemble", "MDSettings", "Thermostat", "settings_from_text"]

Ensemble = Literal["nve", "nvt", "npt"]
Thermostat = Literal["langevin", "bussi", "nose-hoover"]
Barostat = Literal["isotropic", "full"]

ENSEMBLES = ("nve", "nvt", "npt")
THERMOSTATS = ("langevin", "bussi", "nose-hoover")
BAROSTATS = ("isotropic", "full")

#: Default bound of the temperature in K, unless ten times the thermostat's temperature is higher.
HOTTEST = 1e4

#: Unit of each setting that has one, for files and messages.
_UNITS = {
    "temperature": "K",
    "timestep": "fs",
    "tau": "fs",
    "pressure": "eV/Å^3",
    "pressure_tau": "fs",
    "max_temperature": "K",
}

#: Settings that may change between restarts, because they do not affect what is already written.
_FREE = ("steps", "save_every")

#: Command-line quantity -> internal unit and an example.
_QUANTITIES = {
    "temperature": ("K", "300K"),
    "timestep": ("fs", "0.5fs"),
    "tau": ("fs", "100fs"),
    "pressure": ("eV/Å^3", "1bar or 2GPa"),
    "pressure_tau": ("fs", "1ps"),
    "max_temperature": ("K", "5000K"),
    "time": ("fs", "10ps"),
    "skin": ("Å", "0.5Å"),
}

_PLAIN = ("ensemble", "thermostat", "barostat", "velocities", "seed", "log_every", "frame_every", "save_every")


@dataclass(frozen=True)
class MDSettings:
    """Settings of a simulation.

    Args:
        ensemble: "nve" (constant energy and cell; velocity Verlet), "nvt" (constant temperature) or "npt" (constant
            temperature and pressure).
        steps: total number of steps; raise it to extend a finished run.
        temperature: temperature in K of the thermostat and of random initial velocities. Optional only for "nve".
        timestep: integration time step in fs.
        thermostat: "langevin", "bussi" (stochastic velocity rescaling) or "nose-hoover" (a chain of three); None is
            Langevin for "nvt" and the chain, the only choice, for "npt".
        tau: time constant of the thermostat in fs; for Langevin the inverse friction.
        pressure: external pressure in eV/Å^3, for "npt".
        pressure_tau: time constant of the barostat in fs.
        barostat: "isotropic" (the cell keeps its shape) or "full" (Martyna, Tobias and Klein; both from ASE).
        velocities: "file" (velocities of the structure) or "random" (Maxwell-Boltzmann); None uses those of the
            structure if it has any.
        seed: random seed of the initial velocities and the thermostat.
        log_every: steps between rows of the log.
        frame_every: steps between frames of the trajectory.
        save_every: steps between saved states for restarts; a state is also saved every minute.
        max_temperature: temperature in K above which the run stops; None is 10 000 K, or ten times the temperature if
            that is higher.

    Raises:
        InputError: a value is invalid, missing for the ensemble, or has no meaning in it.
    """

    ensemble: Ensemble
    steps: int
    temperature: float | None = None
    timestep: float = 0.5
    thermostat: Thermostat | None = None
    tau: float = 100.0
    pressure: float | None = None
    pressure_tau: float = 1000.0
    barostat: Barostat | None = None
    velocities: Literal["file", "random"] | None = None
    seed: int = 0
    log_every: int = 10
    frame_every: int = 100
    save_every: int = 1000
    max_temperature: float | None = None

    def __post_init__(self) -> None:
        choices: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
            ("ensemble", self.ensemble, ENSEMBLES),
            ("thermostat", self.thermostat, THERMOSTATS),
            ("barostat", self.barostat, BAROSTATS),
            ("velocities", self.velocities, ("file", "random")),
        )
        for kind, name, names in choices:
            if name not in names and (name is not None or kind == "ensemble"):
                raise InputError(unknown_name(kind, str(name), names))
        for name in ("steps", "log_every", "frame_every", "save_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; it must be 0 or more.")
        for name in ("timestep", "tau", "pressure_tau", "max_temperature"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value} {_UNITS[name]}; it must be above 0 and finite.")
        self._check_ensemble()

    def _check_ensemble(self) -> None:
        name = self.ensemble
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise InputError(f"temperature is {self.temperature} K; it must be 0 or more, and finite.")
        if self.pressure is not None and not math.isfinite(self.pressure):
            raise InputError(f"pressure is {self.pressure} eV/Å^3; it must be finite.")
        if name != "nve" and not self.temperature:
            raise InputError(f"{name} needs a temperature above 0 K, such as 300K.")
        if name == "nve" and self.thermostat is not None:
            raise InputError(f"nve has no thermostat: omit {self.thermostat}, or choose nvt.")
        if name == "npt" and self.thermostat not in (None, "nose-hoover"):
            raise InputError(f"npt uses the thermostat nose-hoover, not {self.thermostat}.")
        if name == "npt" and self.pressure is None:
            raise InputError("npt needs a pressure, such as 1bar.")
        if name != "npt" and (self.pressure is not None or self.barostat is not None):
            setting = "pressure" if self.pressure is not None else "barostat"
            raise InputError(f"{name} keeps the cell constant: omit the {setting}, or choose npt.")

    @property
    def coupling(self) -> str | None:
        """The thermostat that is used."""
        return self.thermostat or {"nvt": "langevin", "npt": "nose-hoover"}.get(self.ensemble)

    @property
    def hottest(self) -> float:
        """Temperature in K above which a run stops."""
        return self.max_temperature or max(HOTTEST, 10 * (self.temperature or 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, by name with unit."""
        return {_label(name): value for name, value in vars(self).items()}

    def decides(self) -> dict[str, Any]:
        """Return the settings that determine the output, which a restart must not change."""
        return {_label(name): value for name, value in vars(self).items() if name not in _FREE}


def _label(name: str) -> str:
    words = name.replace("_", " ")
    return f"{words} [{_UNITS[name]}]" if name in _UNITS else words


def settings_from_text(options: Mapping[str, Any]) -> tuple[MDSettings, float]:
    """Return the settings, and the skin of the neighbour list in Å, from command-line options.

    Args:
        options: options of ``geoeq md`` by name; quantities are texts with units. A time that is not a whole number of
            steps is rounded up.

    Raises:
        InputError: a unit is missing or wrong, or a value is invalid. The message names the option.
    """
    values: dict[str, Any] = {
        name: _quantity(name, options[name]) for name in _QUANTITIES if options.get(name) is not None
    }
    skin, time = values.pop("skin"), values.pop("time", None)
    steps = options["steps"]
    if time is not None:
        if not (time > 0 and values["timestep"] > 0):
            raise InputError(f"--time {options['time']}, --timestep {options['timestep']}: both must be above 0.")
        steps = math.ceil(time / values["timestep"] * (1 - 1e-12))
    plain = {name: options[name] for name in _PLAIN}
    return MDSettings(steps=steps, **values, **plain), skin


def _quantity(name: str, text: str) -> float:
    unit, example = _QUANTITIES[name]
    try:
        return parse_quantity(text, unit)
    except FieldError as error:
        option = "--" + name.replace("_", "-")
        raise InputError(f"{option} {text}: {error} Write it as in {option} {example}.") from error
