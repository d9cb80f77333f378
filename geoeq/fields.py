"""One table of the quantities that data sets hold and models predict.

A name here is the key in a data set, in the dict a model returns, in a checkpoint and in a results table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geoeq.errors import FieldError, unknown_name

__all__ = ["FIELDS", "NUM_ELEMENTS", "Field", "Level", "field", "uncertainty_name"]

Level = Literal["graph", "node", "edge"]

#: rows of a table by atomic number: one more than the largest.
NUM_ELEMENTS = 119


@dataclass(frozen=True)
class Field:
    """A quantity: where it lives, how it turns, and its unit inside geoeq.

    Attributes:
        level: "graph" (one a structure), "node" (one an atom) or "edge".
        irreps: how it transforms, in e3nn's notation.
        unit: the unit inside; files are converted to it once, at reading.
        extensive: whether it grows with the number of atoms (its head sums over atoms; others average).
        description: in words.
        translates: whether it moves with the origin, as positions do.
    """

    level: Level
    irreps: str
    unit: str
    extensive: bool
    description: str
    translates: bool = False


FIELDS: dict[str, Field] = {
    "energy": Field("graph", "0e", "eV", True, "potential energy, in the reference of the data set"),
    "total_energy": Field(
        "graph", "0e", "eV", True, "electronic total energy, free electrons and nuclei (or pseudo-atoms) at zero"
    ),
    "atomization_energy": Field("graph", "0e", "eV", True, "energy less that of the free atoms (negative if bound)"),
    "adsorption_energy": Field(
        "graph", "0e", "eV", True, "energy less that of the clean surface and of the adsorbate in the gas phase"
    ),
    "relaxed_energy": Field("graph", "0e", "eV", True, "energy after the relaxation, in the reference of the data set"),
    "internal_energy_0k": Field("graph", "0e", "eV", True, "U0: total energy with zero-point energy, 0 K"),
    "internal_energy": Field("graph", "0e", "eV", True, "U: total internal energy at 298.15 K"),
    "enthalpy": Field("graph", "0e", "eV", True, "H: total enthalpy at 298.15 K"),
    "free_energy": Field("graph", "0e", "eV", True, "G: total free energy at 298.15 K"),
    "atomization_energy_0k": Field("graph", "0e", "eV", True, "U0 less that of the free atoms"),
    "atomization_energy_298k": Field("graph", "0e", "eV", True, "U less that of the free atoms"),
    "atomization_enthalpy": Field("graph", "0e", "eV", True, "H less that of the free atoms"),
    "atomization_free_energy": Field("graph", "0e", "eV", True, "G less that of the free atoms"),
    "forces": Field("node", "1o", "eV/Å", False, "minus the derivative of the energy by the positions"),
    "stress": Field("graph", "0e+2e", "eV/Å^3", False, "derivative of the energy by strain, per volume (ASE's sign)"),
    "homo": Field("graph", "0e", "eV", False, "energy of the highest occupied orbital"),
    "lumo": Field("graph", "0e", "eV", False, "energy of the lowest unoccupied orbital"),
    "gap": Field("graph", "0e", "eV", False, "LUMO less HOMO"),
    "dipole": Field("graph", "1o", "e·Å", False, "electric dipole moment, a vector"),
    "dipole_norm": Field("graph", "0e", "e·Å", False, "length of the electric dipole moment"),
    "polarizability": Field("graph", "0e", "Å^3", True, "isotropic polarizability"),
    "spatial_extent": Field("graph", "0e", "Å^2", True, "electronic spatial extent <R^2>"),
    "zero_point_energy": Field("graph", "0e", "eV", True, "zero-point vibrational energy"),
    "heat_capacity": Field("graph", "0e", "eV/K", True, "Cv: heat capacity at 298.15 K"),
    "rotational_constants": Field("graph", "3x0e", "1/fs", False, "A, B and C"),
    "atomic_energies": Field("node", "0e", "eV", False, "share of an atom in the energy of its structure"),
    "charges": Field("node", "0e", "e", False, "partial charge of an atom"),
    "total_charge": Field("graph", "0e", "e", False, "net charge of the structure"),
    "positions": Field("node", "1o", "Å", False, "predicted positions", translates=True),
    "relaxed_positions": Field("node", "1o", "Å", False, "positions after the relaxation", translates=True),
    "velocities": Field("node", "1o", "Å/fs", False, "predicted velocities"),
    "features": Field("node", "0e", "1", False, "invariant features of a node, of a width that the model chooses"),
    "last_layer": Field(
        "graph", "0e", "1", False, "of what a head gives the derivative by the weights of its last layer"
    ),
}

_UNCERTAINTY = "_uncertainty"


def field(name: str) -> Field:
    """The field called ``name``: of the table, or the uncertainty of one of them.

    Raises:
        FieldError: there is none; the message gives the closest and all known names.
    """
    of = name.removesuffix(_UNCERTAINTY)
    if of != name and of in FIELDS:
        known = FIELDS[of]
        said = f"estimated standard deviation of the {of.replace('_', ' ')}"
        return Field(known.level, "0e", known.unit, False, said + ("" if known.irreps == "0e" else ", as a norm"))
    if name not in FIELDS:
        raise FieldError(unknown_name("field", name, FIELDS))
    return FIELDS[name]


def uncertainty_name(name: str) -> str:
    """How the estimated standard deviation of ``name`` is called; a scalar, the norm of that of the components.

    Raises:
        FieldError: there is no such field, or it is an uncertainty itself.
    """
    if name not in FIELDS:
        raise FieldError(unknown_name("field", name, FIELDS))
    return name + _UNCERTAINTY
