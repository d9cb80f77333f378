"""The rule that ends a simulation where the model is not sure any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from geoeq.errors import FieldError, InputError
from geoeq.simulate.md.simulation import StopRule
from geoeq.simulate.md.thermo import OF_FORCES, UNCERTAIN
from geoeq.units import parse_quantity

__all__ = ["uncertainty_rule"]

_EXAMPLES = "0.05eV/atom (the energy, for each atom), 1eV (the energy) or 0.5eV/Å (the force on any atom)"


def uncertainty_rule(limit: str) -> StopRule:
    """A rule for ``Simulation.run`` that ends it where the estimated standard deviation is above a limit.

    Args:
        limit: with its unit, which says of what: ``0.05eV/atom`` or ``50meV/atom`` of the energy divided by the number
            of atoms, ``1eV`` of the energy, ``0.5eV/Å`` of the force on any atom (of an ensemble).

    Raises:
        InputError: it is no number above 0 with such a unit. When it is asked: the model gives no such uncertainty.
    """
    each_atom = limit.replace(" ", "").endswith("/atom")
    value = None
    name = UNCERTAIN
    for unit, of in (("eV", UNCERTAIN), ("eV/Å", OF_FORCES)):
        try:
            value = parse_quantity(limit.replace(" ", "").removesuffix("/atom"), unit)
        except FieldError:
            continue
        name = of
        break
    if value is None or not 0 < value < float("inf") or (each_atom and name != UNCERTAIN):
        raise InputError(f"A limit of the uncertainty is a number above 0 with its unit: {_EXAMPLES}; not '{limit}'.")

    def rule(results: Mapping[str, Any]) -> str | None:
        if name not in results:
            raise InputError(
                f"The model does not know its {name.replace('_', ' ')}. "
                + (
                    "Only an ensemble knows that of forces; take a limit in eV/atom."
                    if UNCERTAIN in results
                    else "geoeq calibrate gives it one."
                )
            )
        found = np.asarray(results[name], dtype=np.float64)
        size = float(found.max(initial=0.0)) / (len(results["forces"]) if each_atom else 1)
        if size <= value:
            return None
        if name == OF_FORCES:
            return f"the uncertainty of the force on atom {int(found.argmax())} is {size:.3g} eV/Å, above {limit}"
        unit = "eV/atom" if each_atom else "eV"
        return f"the uncertainty of the energy is {size:.3g} {unit}, above {limit}"

    return rule
