"""Find molecules that are drawings instead of geometries, or whose hydrogens were left out."""

from __future__ import annotations

import numpy as np

from geoeq.data.molecules.sdf import SdfMolecule
from geoeq.data.ragged import Array

__all__ = ["drawing_fault", "geometry_fault"]

#: Element -> valence of the neutral atom; of these the number of hydrogens follows from the bonds.
_VALENCES = {6: 4, 7: 3, 8: 2, 9: 1, 16: 2, 17: 1, 35: 1, 53: 1}

#: Elements whose four neighbours are never in one plane: C, N, Si, P; clusters of boron are planar.
_TETRAHEDRAL = (6, 7, 14, 15)

#: Two atoms are bonded if their distance is below this many times the sum of their covalent radii.
_BONDED = 1.25

#: Distances over the sum of covalent radii from which a bond is of order 1, 1.5 and 2; below the last it is triple.
_ORDERS = ((0.96, 1.0), (0.90, 1.5), (0.82, 2.0))

#: Thickness in Å below which a molecule is flat.
_FLAT = 1e-3

#: Largest molecule that is examined, in atoms, and share of carbons without hydrogens that is conclusive.
_LARGEST, _SHARE = 500, 0.3

_FLAT_TEXT = "its atoms lie in one plane, although an atom with four neighbours cannot: it is a drawing"


def drawing_fault(molecule: SdfMolecule) -> str | None:
    """Return why a molecule with bonds is not a geometry, as the end of a sentence; None if it may be one."""
    if molecule.is_drawing:
        return "its second line says '2D': it is a drawing"
    degree = np.bincount(molecule.bonds.reshape(-1), minlength=len(molecule.numbers))
    crowded = np.isin(molecule.numbers, _TETRAHEDRAL) & (degree >= 4)
    if crowded.any() and not molecule.positions[:, 2].any():
        return _FLAT_TEXT
    bonds = np.zeros(len(molecule.numbers))
    for end in (0, 1):
        np.add.at(bonds, molecule.bonds[:, end], molecule.orders)
    lacking = 0
    for number, order, charge, radical in zip(molecule.numbers, bonds, molecule.charges, molecule.radicals):
        if int(number) in _VALENCES:
            valence = _VALENCES[int(number)] + (-abs(int(charge)) if number == 6 else int(charge))
            lacking += max(int(np.floor(valence - order - radical + 1e-6)), 0)
    if lacking > np.sum(molecule.numbers == 1):
        return f"it lacks {lacking} hydrogens according to its bonds (radicals need a line 'M  RAD')"
    return None


def geometry_fault(numbers: Array, positions: Array) -> str | None:
    """Return why a molecule without bonds is not a geometry, as the end of a sentence; None if it may be one.

    Shapes:
        numbers: [n]. positions: [n, 3] Å.
    """
    from ase.data import covalent_radii

    count = len(numbers)
    if not 2 < count <= _LARGEST:
        return None
    is_flat = np.linalg.svd(positions - positions.mean(0), compute_uv=False)[2] < _FLAT
    carbons = numbers == 6
    if not is_flat and ((numbers == 1).any() or carbons.sum() < 2):
        return None
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)  # [n, n]
    np.fill_diagonal(distances, np.inf)
    ratio = distances / (covalent_radii[numbers][:, None] + covalent_radii[numbers][None])
    if is_flat:
        equal = (distances < 1.1 * distances.min(1, keepdims=True)) & (ratio < 2)  # drawn bonds are equally long
        neighbours = ((ratio < _BONDED) | equal).sum(1)
        if (np.isin(numbers, _TETRAHEDRAL) & (neighbours == 4)).any():
            return _FLAT_TEXT
    if (numbers == 1).any() or carbons.sum() < 2:
        return None
    orders = np.full_like(ratio, 3.0)
    for least, order in reversed(_ORDERS):
        orders[ratio >= least] = order
    orders[ratio >= _BONDED] = 0
    short = carbons & (orders.sum(1) < 3.4) & (orders.sum(1) > 0)
    if carbons.all():  # clusters of carbon are short of bonds, too, but their bonds are shorter than single ones
        short &= orders.max(1) == 1
    if short.sum() >= _SHARE * carbons.sum():
        return "it has no hydrogens, although its carbon atoms have free valences"
    return None
