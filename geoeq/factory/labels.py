"""What the method says of one structure, looked at before it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms

__all__ = ["label"]


def label(atoms: Atoms, fields: Sequence[str], max_force: float) -> dict[str, Any]:
    """The values of ``fields`` in ASE's units, which are those of ``geoeq.fields``.

    Forces are those of the method, on atoms that are held too.

    Args:
        atoms: with a calculator.
        fields: what that gives.
        max_force: the largest force on an atom that is let through, eV/Å.

    Raises:
        ValueError: a value is not finite, or a force too large.
    """
    found: dict[str, Any] = {}
    for name in fields:
        if name == "energy":
            found[name] = np.float64(atoms.get_potential_energy())
        elif name == "forces":
            found[name] = np.array(atoms.get_forces(apply_constraint=False), dtype=np.float64)
        else:
            found[name] = np.array(atoms.calc.get_property(name, atoms), dtype=np.float64)
        if not np.isfinite(found[name]).all():
            raise ValueError(f"'{name}' is not finite")
    largest = float(np.max(np.linalg.norm(found["forces"], axis=1)))
    if largest > max_force:
        raise ValueError(f"a force of {largest:.3g} eV/Å is above {max_force:g} eV/Å")
    return found
