"""The structures of ``md.py``: one molecule, water, and crystals of silicon from 64 to 10 000 atoms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule

#: A conformer of aspirin, made by RDKit (ETKDG, MMFF94), Å.
ASPIRIN = (
    "CCOOCCCCCCCOOHHHHHHHH",
    (3.305, -0.614, -0.351, 1.922, -0.099, -0.620, 1.493, 0.174, -1.733, 1.245, 0.019, 0.588, -0.073, 0.452, 0.424),
    (-0.306, 1.816, 0.637, -1.596, 2.329, 0.513, -2.652, 1.480, 0.188, -2.420, 0.115, -0.006, -1.127, -0.420, 0.120),
    (-0.993, -1.885, -0.078, -1.889, -2.628, -0.443, 0.219, -2.387, 0.216, 3.854, 0.105, 0.264, 3.835, -0.741, -1.299),
    (3.250, -1.584, 0.148, 0.518, 2.479, 0.889, -1.777, 3.390, 0.667, -3.659, 1.878, 0.086, -3.259, -0.533, -0.253),
    (0.111, -3.346, 0.043),
)

#: Of water at 1 g/cm^3, Å^3.
VOLUME_OF_WATER = 29.9


def aspirin() -> Atoms:
    symbols, *rows = ASPIRIN
    return Atoms(list(symbols), np.concatenate([np.asarray(row) for row in rows]).reshape(-1, 3))


def water(per_side: int) -> Atoms:
    """Molecules on a cubic lattice, turned at random, at the density of the liquid."""
    generator = np.random.default_rng(0)
    spacing = VOLUME_OF_WATER ** (1 / 3)
    box = Atoms(cell=[per_side * spacing] * 3, pbc=True)
    for place in np.ndindex(per_side, per_side, per_side):
        one = molecule("H2O")
        one.positions -= one.get_center_of_mass()
        axis = generator.normal(size=3)
        one.rotate(float(generator.uniform(0, 360)), axis)
        one.positions += spacing * np.asarray(place)
        box += one
    return box


def silicon(*repeat: int) -> Atoms:
    """Diamond, its atoms moved by 0.05 Å at random."""
    atoms = bulk("Si", a=5.43, cubic=True) * repeat
    atoms.rattle(0.05, seed=0)
    return atoms


#: name -> structure, smallest first.
STRUCTURES: dict[str, Callable[[], Atoms]] = {
    "aspirin": aspirin,
    "Si 64": lambda: silicon(2, 2, 2),
    "water 192": lambda: water(4),
    "Si 1000": lambda: silicon(5, 5, 5),
    "Si 4000": lambda: silicon(5, 10, 10),
    "Si 10 000": lambda: silicon(5, 10, 25),
}
