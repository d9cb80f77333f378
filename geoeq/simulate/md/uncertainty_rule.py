"""Stop rule: end a simulation when the model becomes uncertain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from geoeq.errors import FieldError, InputError
from geoeq.simulate.md.simulation import StopRule
from geoeq.simulate.md.thermo import ENERGY_UNCERTAINTY, FORCES_UNCERTAINTY
from geoeq.units import parse_quantity

__all__ = ["uncertainty_rule"]

_EXAMPLES = "0.05eV/atom (energy per atom), 1eV (energy) or 0.5eV/Å (force on any atom)"


def uncertainty_rule(limit: str) -> StopRule:
    """Return a rule for ``Simulation.run`` that stops it when the estimated standard deviation exceeds a limit.

    Args:
        limit: limit with a unit, which selects the quantity: ``0.05eV/atom`` or ``50meV/atom`` for the energy per atom,
            ``1eV`` for the energy, ``0.5eV/Å`` for the force on any atom (ensembles only).

    Raises:
        InputError: the limit is not a positive number with such a unit. When called: the model has no such uncertainty.
    """
    text = limit.replace(" ", "")
    per_atom = text.endswith("/atom")
    value = None
    name = ENERGY_UNCERTAINTY
    for unit, quantity in (("eV", ENERGY_UNCERTAINTY), ("eV/Å", FORCES_UNCERTAINTY)):
        try:
            value = parse_quantity(text.removesuffix("/atom"), unit)
        except FieldError:
            continue
        name = quantity
        break
    if value is None or not 0 < value < float("inf") or (per_atom and name != ENERGY_UNCERTAINTY):
        raise InputError(f"An uncertainty limit is a positive number with its unit: {_EXAMPLES}; not '{limit}'.")

    def rule(results: Mapping[str, Any]) -> str | None:
        if name not in results:
            remedy = (
                "Only ensembles estimate that of forces; use a limit in eV/atom."
                if ENERGY_UNCERTAINTY in results
                else "Add one with geoeq calibrate."
            )
            raise InputError(f"The model has no {name.replace('_', ' ')}. {remedy}")
        estimates = np.asarray(results[name], dtype=np.float64)
        largest = float(estimates.max(initial=0.0)) / (len(results["forces"]) if per_atom else 1)
        if largest <= value:
            return None
        if name == FORCES_UNCERTAINTY:
            atom = int(estimates.argmax())
            return f"the uncertainty of the force on atom {atom} is {largest:.3g} eV/Å, above {limit}"
        unit = "eV/atom" if per_atom else "eV"
        return f"the uncertainty of the energy is {largest:.3g} {unit}, above {limit}"

    return rule
