"""GFN-xTB through the library tblite, as a calculator of ASE that gives orbital energies and charges too."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.units import Bohr, Hartree

from geoeq.errors import InputError
from geoeq.resources import import_extra

__all__ = ["XTB"]

#: Electrons that an occupied orbital has at the least.
_OCCUPIED = 0.5


class XTB(Calculator):
    """Extended tight binding: energy, forces, dipole, charges and frontier orbitals.

    The energy is what the forces are derivatives of, with the entropy of electrons at 300 K. It counts valence
    electrons only. In a radical the highest occupied orbital is the singly occupied one, and the gap is to the next.
    The dipole of an ion is about its centre of mass. Nothing here depends on the spin but the occupations.

    Args:
        method: "GFN2-xTB" or "GFN1-xTB".
        charge: total, e.
        multiplicity: 2S + 1.
        accuracy: of the self-consistent charges, in units of tblite's own; the smaller, the more exact.

    Raises:
        InputError: there is no such method, or the multiplicity is below 1.
        MissingExtraError: the extra "xtb" is not installed.

    Source:
        Bannwarth, Ehlert and Grimme, J. Chem. Theory Comput. 15, 1652 (2019); Grimme, Bannwarth and Shushkov,
        J. Chem. Theory Comput. 13, 1989 (2017).
    """

    implemented_properties = ["energy", "free_energy", "forces", "dipole", "charges", "homo", "lumo", "gap"]  # noqa: RUF012

    def __init__(self, method: str = "GFN2-xTB", charge: int = 0, multiplicity: int = 1, accuracy: float = 0.1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if method not in ("GFN2-xTB", "GFN1-xTB"):
            raise InputError(f"XTB computes GFN2-xTB and GFN1-xTB, not '{method}'.")
        if multiplicity < 1:
            raise InputError(f"A multiplicity is 1 or more, not {multiplicity}.")
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
        """Compute all of it; the charges of the last positions are where the next ones begin."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        structure: Any = self.atoms  # a copy, with what the base class looks at
        try:
            self._place(structure, set(system_changes))
            self._last = self._structure.singlepoint(self._last)
        except RuntimeError as error:  # what tblite raises is one
            self._structure = self._last = None
            raise CalculationFailed(f"{self._method}: {error}") from error
        self.results = self._read(self._last, structure)

    def _place(self, atoms: Atoms, changes: set[str]) -> None:
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

    def _read(self, found: Any, atoms: Atoms) -> dict[str, Any]:
        energy, charges = float(found.get("energy")) * Hartree, found.get("charges")
        levels = found.get("orbital-energies") * Hartree
        occupied = found.get("orbital-occupations") > _OCCUPIED
        homo = float(levels[occupied].max()) if occupied.any() else np.nan
        lumo = float(levels[~occupied].min()) if not occupied.all() else np.nan
        dipole = found.get("dipole") * Bohr - self._settings["charge"] * atoms.get_center_of_mass()
        return {
            "energy": energy,
            "free_energy": energy,
            "forces": -found.get("gradient") * (Hartree / Bohr),
            "charges": charges,
            "dipole": dipole,
            "homo": homo,
            "lumo": lumo,
            "gap": lumo - homo,
        }
