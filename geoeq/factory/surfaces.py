"""Adsorbates on surfaces, built by ``ase.build``: clean slabs, gases, and the slabs with an adsorbate at each site."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from ase import Atoms, build
from ase.constraints import FixAtoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.g2 import molecule_names

from geoeq.errors import InputError, unknown_name
from geoeq.factory.starts import Start, fewest_unpaired

__all__ = ["Surface", "adsorbed", "gas_start", "slab_start"]

#: Facets that have named sites.
_FACETS = ("fcc100", "fcc110", "fcc111", "bcc100", "bcc110", "bcc111", "hcp0001")

#: Between the uppermost atoms and those of the next cell, on both sides, Å.
_VACUUM = 8.0

#: Layers that may move; those below are held.
_MOBILE = 2

#: In OC20: 0 below the surface, 1 at it, 2 of the adsorbate.
_BULK, _TOP, _ADSORBATE = 0, 1, 2

_FORM = re.compile(r"(?P<metal>[A-Z][a-z]?):(?P<facet>\w+):(?P<size>\d+x\d+x\d+)$")


@dataclass(frozen=True)
class Surface:
    """A slab of one metal.

    Attributes:
        metal: its symbol.
        facet: such as fcc111.
        size: repeats in the plane, and layers.
    """

    metal: str
    facet: str
    size: tuple[int, int, int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``Cu:fcc111:2x2x4``.

        Raises:
            InputError: it is written otherwise, or there is no such metal or facet.
        """
        match = _FORM.match(text)
        if match is None:
            raise InputError(f"--surface {text}: write it as in --surface Cu:fcc111:2x2x4.")
        if match["metal"] not in chemical_symbols[1:]:
            raise InputError(f"--surface {text}: there is no element {match['metal']}.")
        if match["facet"] not in _FACETS:
            raise InputError(f"--surface {text}: {unknown_name('facet', match['facet'], _FACETS)}")
        first, second, layers = (int(word) for word in match["size"].split("x"))
        if min(first, second) < 1 or layers <= _MOBILE:
            raise InputError(f"--surface {text}: {_MOBILE + 1} layers or more are needed; all but {_MOBILE} are held.")
        return cls(match["metal"], match["facet"], (first, second, layers))

    def __str__(self) -> str:
        return f"{self.metal} {self.facet} {'x'.join(map(str, self.size))}"

    def build(self) -> Atoms:
        """The slab with the lattice constant of the element, its layers tagged as in OC20 and the lower ones held.

        Raises:
            InputError: ASE does not know a lattice constant of this metal for the facet.
        """
        try:
            slab: Atoms = getattr(build, self.facet)(self.metal, size=self.size, vacuum=_VACUUM)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"--surface {self}: ASE cannot build it: {error}") from error
        layers = slab.get_tags()  # 1 is the uppermost
        slab.pbc = True
        slab.set_tags(np.where(layers == 1, _TOP, _BULK))
        slab.set_constraint(FixAtoms(mask=layers > _MOBILE))
        return slab


def slab_start(surface: Surface) -> Start:
    """The clean surface."""
    atoms = surface.build()
    return Start(str(surface), str(surface), 0, atoms, multiplicity=fewest_unpaired(atoms))


def gas_start(adsorbate: str) -> Start:
    """An adsorbate alone: an atom, or a molecule that ``ase.build.molecule`` knows.

    Raises:
        InputError: there is no such atom or molecule.
    """
    if adsorbate in chemical_symbols[1:]:
        atoms = Atoms(adsorbate, positions=np.zeros((1, 3)))
    elif adsorbate in molecule_names:
        atoms = build.molecule(adsorbate)
    else:
        known = [*chemical_symbols[1:], *molecule_names]
        close = unknown_name("adsorbate", adsorbate, known).partition(" Known:")[0]
        raise InputError(f"--adsorbates: {close} Atoms, and the molecules of ase.data.g2, are known.")
    found = Atoms(atoms.numbers, atoms.positions)
    return Start(adsorbate, adsorbate, 0, found, multiplicity=fewest_unpaired(found))


def adsorbed(slab: Start, gas: Start) -> list[Start]:
    """An adsorbate on a relaxed surface, at each of the sites that the facet has.

    The first atom of the adsorbate is bound (of those with oxygen and carbon, the carbon; of others the one that is no
    hydrogen), the rest points away from the surface.

    Args:
        slab: the clean surface, relaxed, its energy as its reference.
        gas: the adsorbate, relaxed, its energy as its reference.
    """
    sites: dict[str, Any] = slab.atoms.info["adsorbate_info"]["sites"]
    molecule = _upright(gas.atoms)
    name, found = f"{gas.name} on {slab.name}", []
    for number, site in enumerate(sites):
        atoms = slab.atoms.copy()
        atoms.calc = None
        metal = atoms.numbers[0]
        height = covalent_radii[metal] + covalent_radii[molecule.numbers[0]]
        build.add_adsorbate(atoms, molecule, height if site == "ontop" else 0.75 * height, position=site, mol_index=0)
        tags = atoms.get_tags()
        tags[len(slab.atoms) :] = _ADSORBATE
        atoms.set_tags(tags)
        atoms.info = {"site": site}
        reference = (slab.reference or 0.0) + (gas.reference or 0.0)
        multiplicity = fewest_unpaired(atoms)
        found.append(Start(name, name, number, atoms, multiplicity=multiplicity, reference=reference))
    return found


def _upright(atoms: Atoms) -> Atoms:
    """The molecule with its binding atom first, and the others above it."""
    order = sorted(range(len(atoms)), key=lambda place: (atoms.numbers[place] != 6, atoms.numbers[place] == 1))
    found: Atoms = atoms[order]
    found.positions -= found.positions[0]
    rest = found.positions.mean(axis=0)
    if np.linalg.norm(rest) > 1e-6:
        found.rotate(rest, "z", center=(0, 0, 0))
    return found
