"""Starting structures of sampling: atoms, charge, spin, and the group that stays together in a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from ase import Atoms
from ase.io.jsonio import decode, encode

__all__ = ["Start", "fewest_unpaired", "spin_fault"]


@dataclass(frozen=True)
class Start:
    """A structure from which others are sampled.

    Attributes:
        group: structures of one group are never divided between training and test.
        name: name of the molecule or system, for tables.
        number: number of the conformer, frame or site of that name, from 0.
        atoms: positions, cell, tags, and the constrained atoms (``FixAtoms``).
        charge: total charge, e.
        multiplicity: spin multiplicity, 2S + 1.
        reference: energy of the clean surface plus that of the adsorbate in the gas phase, eV; None if there is no
            adsorbate.
    """

    group: str
    name: str
    number: int
    atoms: Atoms
    charge: int = 0
    multiplicity: int = 1
    reference: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values from which ``from_dict`` restores the start to the last bit."""
        return {**{name: value for name, value in vars(self).items() if name != "atoms"}, "atoms": encode(self.atoms)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Restore a start from the values of ``to_dict``."""
        return cls(**{**values, "atoms": decode(values["atoms"])})


def fewest_unpaired(atoms: Atoms, charge: int = 0) -> int:
    """Return the lowest multiplicity: 1 for an even number of electrons, 2 for an odd one."""
    return 1 + (int(atoms.numbers.sum()) - charge) % 2


def spin_fault(atoms: Atoms, charge: int, multiplicity: int) -> str | None:
    """Return why a structure cannot have this charge and multiplicity, or None if it can."""
    electrons = int(atoms.numbers.sum()) - charge
    unpaired = multiplicity - 1
    if unpaired < 0 or unpaired > electrons or (electrons - unpaired) % 2:
        return f"with a charge of {charge:+d} e it has {electrons} electrons, of which {unpaired} cannot be unpaired"
    return None
