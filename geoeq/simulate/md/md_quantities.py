"""Settings of a simulation from the texts of a command line, each with its unit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from geoeq.errors import FieldError, InputError
from geoeq.simulate.md.settings import MDSettings
from geoeq.units import parse_quantity

__all__ = ["settings_from_text"]

#: Setting -> unit inside, and a way to write it.
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


def settings_from_text(given: Mapping[str, Any]) -> tuple[MDSettings, float]:
    """The settings, and the skin of the neighbour list in Å.

    Args:
        given: the options of ``geoeq md`` by name; a quantity is a text with its unit, and a time that is no whole
            number of steps is rounded up to one.

    Raises:
        InputError: a unit is missing or wrong, or a value cannot be. The message names the option.
    """
    values: dict[str, Any] = {name: _quantity(name, given[name]) for name in _QUANTITIES if given.get(name) is not None}
    skin, time = values.pop("skin"), values.pop("time", None)
    steps = given["steps"]
    if time is not None:
        if not (time > 0 and values["timestep"] > 0):
            raise InputError(f"--time {given['time']}, --timestep {given['timestep']}: both must be above 0.")
        steps = math.ceil(time / values["timestep"] * (1 - 1e-12))
    plain = {name: given[name] for name in _PLAIN}
    return MDSettings(steps=steps, **values, **plain), skin


def _quantity(name: str, text: str) -> float:
    unit, example = _QUANTITIES[name]
    try:
        return parse_quantity(text, unit)
    except FieldError as error:
        option = "--" + name.replace("_", "-")
        raise InputError(f"{option} {text}: {error} Write it as in {option} {example}.") from error
