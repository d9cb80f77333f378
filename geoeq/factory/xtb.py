"""GFN-xTB by the library tblite, as a calculator of ASE that also returns orbital energies and charges."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.units import Bohr, Hartree

from geoeq.errors import InputError
from geoeq.resources import import_extra

__all__ = ["XTB"]

#: Lowest number of electrons in an occupied orbital.
_OCCUPIED = 0.5


class XTB(Calculator):
    """Calculator for extended tight binding: energy, forces, dipole, charges and frontier orbitals.

    The energy is the one whose derivatives are the forces: it includes the electronic entropy at 300 K, and only the
    valence electrons. In a radical the highest occupied orbital is the singly occupied one, and the gap is that to the
    next orbital. The dipole of an ion is relative to its centre of mass. The spin affects only the occupations.

    Args:
        method: "GFN2-xTB" or "GFN1-xTB".
        charge: total charge, e.
        multiplicity: spin multiplicity, 2S + 1.
        accuracy: accuracy of the self-consistent charges in tblite's units; smaller is more accurate.

    Raises:
        InputError: the method is unknown, or the multiplicity is less than 1.
        MissingExtraError: the extra "xtb" is not installed.

    Source:
        Bannwarth, Ehlert and Grimme, J. Chem. Theory Comput. 15, 1652 (2019); Grimme, Bannwarth and Shushkov,
        J. Chem. Theory Comput. 13, 1989 (2017).
    """

    implemented_properties = ["energy", "free_energy", "forces", "dipole", "charges", "homo", "lumo", "gap"]  # noqa: RUF012

    def __init__(self, method: str = "GFN2-xTB", charge: int = 0, multiplicity: int = 1, accuracy: float = 0.1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if method not in ("GFN2-xTB", "GFN1-xTB"):
            raise InputError(f"The method of XTB must be GFN2-xTB or GFN1-xTB, not '{method}'.")
        if multiplicity < 1:
            raise InputError(f"The multiplicity must be 1 or more, not {multiplicity}.")
        self._library = import_extra("tblite.interface", "xtb")
        self._settings = {"charge": float(charge), "uhf": multiplicity - 1}
        self._method, self._accuracy = method, accuracy
        self._structure: Any = None
        self._last: Any = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute all properties, starting from the charges of the previous positions."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        structure: Any = self.atoms  # the copy made by the base class
        try:
            self._update(structure, set(system_changes))
            self._last = self._structure.singlepoint(self._last)
        except RuntimeError as error:  # tblite raises subclasses
            self._structure = self._last = None
            raise CalculationFailed(f"{self._method}: {error}") from error
        self.results = self._read(self._last, structure)

    def _update(self, atoms: Atoms, changes: set[str]) -> None:
        positions = atoms.positions / Bohr
        if self._structure is not None and changes <= {"positions"}:
            self._structure.update(positions)
            return
        pbc = atoms.pbc
        lattice = {"lattice": atoms.cell.array / Bohr, "periodic": pbc} if pbc.any() else {}
        self._last = None
        self._structure = self._library.Calculator(self._method, atoms.numbers, positions, **self._settings, **lattice)
        self._structure.set("verbosity", 0)
        self._structure.set("accuracy", self._accuracy)

    def _read(self, result: Any, atoms: Atoms) -> dict[str, Any]:
        energy, charges = float(result.get("energy")) * Hartree, result.get("charges")
        levels = result.get("orbital-energies") * Hartree
        occupied = result.get("orbital-occupations") > _OCCUPIED
        homo = float(levels[occupied].max()) if occupied.any() else np.nan
        lumo = float(levels[~occupied].min()) if not occupied.all() else np.nan
        dipole = result.get("dipole") * Bohr - self._settings["charge"] * atoms.get_center_of_mass()
        return {
            "energy": energy,
            "free_energy": energy,
            "forces": -result.get("gradient") * (Hartree / Bohr),
            "charges": charges,
            "dipole": dipole,
            "homo": homo,
            "lumo": lumo,
            "gap": lumo - homo,
        }
