"""What a simulation is: ensemble, temperature, steps and how often what is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from geoeq.errors import InputError, unknown_name

__all__ = ["Barostat", "Ensemble", "MDSettings", "Thermostat"]

Ensemble = Literal["nve", "nvt", "npt"]
Thermostat = Literal["langevin", "bussi", "nose-hoover"]
Barostat = Literal["isotropic", "full"]

ENSEMBLES = ("nve", "nvt", "npt")
THERMOSTATS = ("langevin", "bussi", "nose-hoover")
BAROSTATS = ("isotropic", "full")

#: In K: above this (or ten times what is asked for, if that is more) nothing that a potential was made for is left.
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

#: What may differ when a run goes on: it changes nothing in what was written before.
_FREE = ("steps", "save_every")


@dataclass(frozen=True)
class MDSettings:
    """The settings of a simulation.

    Args:
        ensemble: "nve" (energy and cell are kept; velocity Verlet), "nvt" (temperature) or "npt" (also pressure).
        steps: of the whole run.
        temperature: in K: of the thermostat, and of velocities that are drawn. None only for "nve".
        timestep: in fs.
        thermostat: "langevin", "bussi" (stochastic rescaling) or "nose-hoover" (a chain of three); None for Langevin
            in "nvt", and for the chain, the only one, in "npt".
        tau: time in which the thermostat acts, in fs; of Langevin the inverse of its friction.
        pressure: in eV/Å^3, for "npt".
        pressure_tau: time in which the barostat acts, in fs.
        barostat: "isotropic" (the cell keeps its shape) or "full" (Martyna, Tobias and Klein; both are ASE's).
        velocities: "file" (those of the structure) or "random" (Maxwell-Boltzmann); None for those of the structure
            where it has some.
        seed: of velocities and thermostat.
        log_every: steps between rows of the log.
        frame_every: steps between frames of the trajectory.
        save_every: steps between states from which a run goes on; one is written each minute besides.
        max_temperature: in K: where a run is stopped; None for 10 000 K, or ten times the temperature if that is more.

    Raises:
        InputError: a value cannot be, is missing for the ensemble, or means nothing in it.
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
        known: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
            ("ensemble", self.ensemble, ENSEMBLES),
            ("thermostat", self.thermostat, THERMOSTATS),
            ("barostat", self.barostat, BAROSTATS),
            ("velocities", self.velocities, ("file", "random")),
        )
        for kind, name, names in known:
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
            raise InputError(f"{name} keeps a temperature: give one above 0 K.")
        if name == "nve" and self.thermostat is not None:
            raise InputError(f"nve has no thermostat: leave out {self.thermostat}, or choose nvt.")
        if name == "npt" and self.thermostat not in (None, "nose-hoover"):
            raise InputError(f"npt has the thermostat nose-hoover, not {self.thermostat}.")
        if name == "npt" and self.pressure is None:
            raise InputError("npt keeps a pressure: give one.")
        if name != "npt" and (self.pressure is not None or self.barostat is not None):
            given = "pressure" if self.pressure is not None else "barostat"
            raise InputError(f"{name} keeps the cell: leave out the {given}, or choose npt.")

    @property
    def coupling(self) -> str | None:
        """The thermostat that is used."""
        return self.thermostat or {"nvt": "langevin", "npt": "nose-hoover"}.get(self.ensemble)

    @property
    def hottest(self) -> float:
        """In K: the temperature above which a run is stopped."""
        return self.max_temperature or max(HOTTEST, 10 * (self.temperature or 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Name with unit -> value."""
        return {_label(name): value for name, value in vars(self).items()}

    def decides(self) -> dict[str, Any]:
        """Those on which what is written depends: a run that goes on must have the same."""
        return {_label(name): value for name, value in vars(self).items() if name not in _FREE}


def _label(name: str) -> str:
    words = name.replace("_", " ")
    return f"{words} [{_UNITS[name]}]" if name in _UNITS else words
