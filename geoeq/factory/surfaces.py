"""Adsorbates on surfaces, built by ``ase.build``: clean slabs, gases, and slabs with an adsorbate at each site."""

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

#: Facets with named sites.
_FACETS = ("fcc100", "fcc110", "fcc111", "bcc100", "bcc110", "bcc111", "hcp0001")

#: Vacuum on each side of the slab, Å.
_VACUUM = 8.0

#: Number of layers that may move; those below are fixed.
_MOBILE = 2

#: Tags as in OC20: 0 below the surface, 1 at the surface, 2 in the adsorbate.
_BULK, _TOP, _ADSORBATE = 0, 1, 2

_FORM = re.compile(r"(?P<metal>[A-Z][a-z]?):(?P<facet>\w+):(?P<size>\d+x\d+x\d+)$")


@dataclass(frozen=True)
class Surface:
    """A slab of one metal.

    Attributes:
        metal: symbol of the metal.
        facet: facet, such as fcc111.
        size: two numbers of repeats in the plane, and the number of layers.
    """

    metal: str
    facet: str
    size: tuple[int, int, int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a text such as ``Cu:fcc111:2x2x4``.

        Raises:
            InputError: the text has another form, or the metal or facet is unknown.
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
            raise InputError(f"--surface {text}: give {_MOBILE + 1} or more layers; all but {_MOBILE} are fixed.")
        return cls(match["metal"], match["facet"], (first, second, layers))

    def __str__(self) -> str:
        return f"{self.metal} {self.facet} {'x'.join(map(str, self.size))}"

    def build(self) -> Atoms:
        """Build the slab with the lattice constant of the element, tags as in OC20, and fixed lower layers.

        Raises:
            InputError: ASE has no lattice constant of this metal for the facet.
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
    """Return the clean surface."""
    atoms = surface.build()
    return Start(str(surface), str(surface), 0, atoms, multiplicity=fewest_unpaired(atoms))


def gas_start(adsorbate: str) -> Start:
    """Return an adsorbate in the gas phase: an atom, or a molecule of ``ase.build.molecule``.

    Raises:
        InputError: the atom or molecule is unknown.
    """
    if adsorbate in chemical_symbols[1:]:
        atoms = Atoms(adsorbate, positions=np.zeros((1, 3)))
    elif adsorbate in molecule_names:
        atoms = build.molecule(adsorbate)
    else:
        known = [*chemical_symbols[1:], *molecule_names]
        close = unknown_name("adsorbate", adsorbate, known).partition(" Known:")[0]
        raise InputError(f"--adsorbates: {close} Known are atoms and the molecules of ase.data.g2.")
    plain = Atoms(atoms.numbers, atoms.positions)
    return Start(adsorbate, adsorbate, 0, plain, multiplicity=fewest_unpaired(plain))


def adsorbed(slab: Start, gas: Start) -> list[Start]:
    """Place an adsorbate on a relaxed surface, at each site of the facet.

    The adsorbate binds by its first carbon atom, else by its first atom that is not hydrogen; the other atoms point
    away from the surface.

    Args:
        slab: relaxed clean surface, with its energy as reference.
        gas: relaxed adsorbate, with its energy as reference.
    """
    sites: dict[str, Any] = slab.atoms.info["adsorbate_info"]["sites"]
    molecule = _upright(gas.atoms)
    name, starts = f"{gas.name} on {slab.name}", []
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
        starts.append(Start(name, name, number, atoms, multiplicity=multiplicity, reference=reference))
    return starts


def _upright(atoms: Atoms) -> Atoms:
    """Return the molecule with its binding atom first and the others above it."""
    order = sorted(range(len(atoms)), key=lambda index: (atoms.numbers[index] != 6, atoms.numbers[index] == 1))
    molecule: Atoms = atoms[order]
    molecule.positions -= molecule.positions[0]
    rest = molecule.positions.mean(axis=0)
    if np.linalg.norm(rest) > 1e-6:
        molecule.rotate(rest, "z", center=(0, 0, 0))
    return molecule
