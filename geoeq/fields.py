"""The table of quantities that data sets contain and models predict.

A name in it is the key in a data set, in the dict that a model returns, in a checkpoint and in a results table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geoeq.errors import FieldError, check_name

__all__ = ["FIELDS", "NUM_ELEMENTS", "Field", "Level", "field", "uncertainty_name"]

Level = Literal["graph", "node", "edge"]

#: Number of rows of a table indexed by atomic number: one more than the largest atomic number.
NUM_ELEMENTS = 119


@dataclass(frozen=True)
class Field:
    """A quantity with its level, its behaviour under rotations, and its unit in geoeq.

    Attributes:
        level: "graph" (one value per structure), "node" (one per atom) or "edge".
        irreps: irreps under which it transforms, in e3nn's notation.
        unit: internal unit, to which files are converted once, when they are read.
        extensive: whether it grows with the number of atoms (its head sums over atoms; others average).
        description: description in words.
        translates: whether it changes with the origin, as positions do.
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
    "atomization_energy": Field("graph", "0e", "eV", True, "energy minus that of the free atoms (negative if bound)"),
    "adsorption_energy": Field(
        "graph", "0e", "eV", True, "energy minus those of the clean surface and of the adsorbate in the gas phase"
    ),
    "relaxed_energy": Field("graph", "0e", "eV", True, "energy after the relaxation, in the reference of the data set"),
    "internal_energy_0k": Field("graph", "0e", "eV", True, "U0: total energy with zero-point energy, 0 K"),
    "internal_energy": Field("graph", "0e", "eV", True, "U: total internal energy at 298.15 K"),
    "enthalpy": Field("graph", "0e", "eV", True, "H: total enthalpy at 298.15 K"),
    "free_energy": Field("graph", "0e", "eV", True, "G: total free energy at 298.15 K"),
    "atomization_energy_0k": Field("graph", "0e", "eV", True, "U0 minus that of the free atoms"),
    "atomization_energy_298k": Field("graph", "0e", "eV", True, "U minus that of the free atoms"),
    "atomization_enthalpy": Field("graph", "0e", "eV", True, "H minus that of the free atoms"),
    "atomization_free_energy": Field("graph", "0e", "eV", True, "G minus that of the free atoms"),
    "forces": Field("node", "1o", "eV/Å", False, "negative gradient of the energy with respect to positions"),
    "stress": Field(
        "graph", "0e+2e", "eV/Å^3", False, "derivative of the energy with respect to strain, per volume (ASE's sign)"
    ),
    "homo": Field("graph", "0e", "eV", False, "energy of the highest occupied orbital"),
    "lumo": Field("graph", "0e", "eV", False, "energy of the lowest unoccupied orbital"),
    "gap": Field("graph", "0e", "eV", False, "LUMO minus HOMO"),
    "dipole": Field("graph", "1o", "e·Å", False, "electric dipole moment, a vector"),
    "dipole_norm": Field("graph", "0e", "e·Å", False, "magnitude of the electric dipole moment"),
    "polarizability": Field("graph", "0e", "Å^3", True, "isotropic polarizability"),
    "spatial_extent": Field("graph", "0e", "Å^2", True, "electronic spatial extent <R^2>"),
    "zero_point_energy": Field("graph", "0e", "eV", True, "zero-point vibrational energy"),
    "heat_capacity": Field("graph", "0e", "eV/K", True, "Cv: heat capacity at 298.15 K"),
    "rotational_constants": Field("graph", "3x0e", "1/fs", False, "A, B and C"),
    "atomic_energies": Field("node", "0e", "eV", False, "contribution of an atom to the energy of its structure"),
    "charges": Field("node", "0e", "e", False, "partial charge of an atom"),
    "total_charge": Field("graph", "0e", "e", False, "net charge of the structure"),
    "positions": Field("node", "1o", "Å", False, "predicted positions", translates=True),
    "relaxed_positions": Field("node", "1o", "Å", False, "positions after the relaxation", translates=True),
    "velocities": Field("node", "1o", "Å/fs", False, "predicted velocities"),
    "features": Field("node", "0e", "1", False, "invariant features of a node, with a width chosen by the model"),
    "last_layer": Field(
        "graph", "0e", "1", False, "gradient of the output of a head with respect to the weights of its last layer"
    ),
}

_UNCERTAINTY = "_uncertainty"


def field(name: str) -> Field:
    """Return the field called ``name``: an entry of the table, or the uncertainty of one.

    Raises:
        FieldError: no field has this name; the message gives the closest and all known names.
    """
    base = name.removesuffix(_UNCERTAINTY)
    if base != name and base in FIELDS:
        known = FIELDS[base]
        description = f"estimated standard deviation of the {base.replace('_', ' ')}"
        description += "" if known.irreps == "0e" else ", as a norm"
        return Field(known.level, "0e", known.unit, False, description)
    check_name("field", name, FIELDS, FieldError)
    return FIELDS[name]


def uncertainty_name(name: str) -> str:
    """Return the name of the estimated standard deviation of a field: a scalar, the norm over its components.

    Raises:
        FieldError: no field has this name, or it is an uncertainty itself.
    """
    check_name("field", name, FIELDS, FieldError)
    return name + _UNCERTAINTY
