"""Guess which unit or sign error explains a wrong factor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from geoeq.data import Dataset
from geoeq.data.card import DIMENSIONLESS
from geoeq.fields import FIELDS
from geoeq.units import conversion

__all__ = ["UNITS", "explain", "misreadings"]

#: Units in which energies, forces and stresses are published.
UNITS: dict[str, Sequence[str]] = {
    "eV": ("eV", "kcal/mol", "kJ/mol", "Ha", "meV"),
    "eV/Å": ("eV/Å", "kcal/mol/Å", "kJ/mol/Å", "kJ/mol/nm", "Ha/Å", "Ha/Bohr", "meV/Å"),
    "eV/Å^3": ("eV/Å^3", "GPa", "kbar", "Ha/Bohr^3"),
}

#: A factor explains another if they differ by at most this, or by the uncertainty: the work along a straight line
#: between two structures is too large by some 15% where bonds are stretched.
_CLOSE, _UNCERTAIN = 1.25, 1.6


def misreadings(dataset: Dataset, name: str) -> dict[str, float]:
    """Return the factors of a target's values if the file used another unit than its card states.

    Args:
        dataset: data set with its card.
        name: name of the target.

    Returns:
        A clause such as "'energy' is in kcal/mol in the file, and read as eV" -> the factor.
    """
    stated = dataset.card.targets[name].unit
    stated = FIELDS[name].unit if stated == DIMENSIONLESS else stated
    kind = name.replace("_", " ")
    return {
        f"'{kind}' is in {unit} in the file, and read as {stated}": conversion(stated, unit)
        for unit in UNITS[FIELDS[name].unit]
        if abs(math.log(conversion(stated, unit))) > 1e-3
    }


def explain(factor: float, uncertain: float, causes: Mapping[str, float]) -> list[str]:
    """Return the causes that explain a factor, the closest first; negative factors mean a wrong sign.

    Args:
        factor: measured factor.
        uncertain: its uncertainty: the true one is between ``factor / uncertain`` and ``factor · uncertain``.
        causes: clause -> factor.
    """
    distances = {cause: abs(math.log(factor / expected)) for cause, expected in causes.items() if factor * expected > 0}
    limit = math.log(max(_CLOSE, min(uncertain, _UNCERTAIN)))
    return [cause for cause in sorted(distances, key=lambda cause: distances[cause]) if distances[cause] <= limit]
