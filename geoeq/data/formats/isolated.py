"""Free atoms in a file: they are not training data, but define the zero of atomization energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from geoeq.data.ragged import Array
from geoeq.fields import NUM_ELEMENTS

__all__ = ["FreeAtoms", "is_free_atom"]

_NAMES = {"isolatedatom", "isolatedatoms", "freeatom"}


def is_free_atom(atoms: int, config_type: object) -> bool:
    """Return whether a structure is a free atom: it has one atom and is marked ``IsolatedAtom`` or similarly."""
    return atoms == 1 and str(config_type).casefold().replace("_", "").replace("-", "") in _NAMES


class FreeAtoms:
    """Energies of free atoms.

    Args:
        energies: atomic number -> energy, in the unit of the file.
    """

    def __init__(self, energies: Mapping[int, float]) -> None:
        self.energies = dict(sorted(energies.items()))
        self.table = np.full(NUM_ELEMENTS, np.nan)
        self.table[list(self.energies)] = list(self.energies.values())

    def atomization_energy(self, energy: Array | float, numbers: Array) -> Array:
        """Subtract the energies of the free atoms of a structure; the result is NaN if one of them is unknown.

        Shapes:
            energy: [] or [G]. numbers: [n]. Returns the shape of ``energy``.
        """
        return np.asarray(energy - self.table[numbers].sum())

    def describe(self, elements: Sequence[int]) -> str:
        """Return a remark for the user about a file with these ``elements``."""
        from ase.data import chemical_symbols

        known = ", ".join(f"{chemical_symbols[z]} {energy:.9g}" for z, energy in self.energies.items())
        lacking = [chemical_symbols[z] for z in elements if z not in self.energies]
        offer = (
            f"there are none for {', '.join(lacking)}, so atomization energies are not available."
            if lacking
            else "atomization_energy, the energy minus theirs, is also a target."
        )
        return f"Free atoms are left out of the structures ({known}); {offer}"
