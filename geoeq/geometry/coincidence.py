"""Detection of coincident atoms without comparing all pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geoeq.geometry.lattice import Lattice, to_cartesian, to_fractional

__all__ = ["coincident_atoms"]

#: Direction that is not perpendicular to the lattice planes of any likely structure.
DIRECTION = (0.5318, 0.3174, 0.7851)

#: Offsets of the three fractional coordinates, and their weights, at most 1.
PHASES, WEIGHTS = (0.713, 1.917, 2.639), (1.0, 0.871, 0.737)


def coincident_atoms(
    positions: Tensor, batch: Tensor, lattice: Lattice | None, distance: float
) -> tuple[int, int, float] | None:
    """Return two atoms of one graph that are closer than ``distance``, directly or through the periodic boundary.

    Every atom gets a projection that changes by at most four times the distance by which the atom moves, and not at all
    when it moves by a lattice vector. Close atoms are therefore close in the sorted projections.

    Shapes:
        positions: [N, 3] Å, finite. batch: [N], sorted.

    Returns:
        The indices of the two atoms in the batch, and their distance in Å; None if there are no such atoms.
    """
    if len(positions) < 2:
        return None
    positions = positions.detach().double()
    fractions = None if lattice is None else to_fractional(positions, batch, lattice)
    projection = _projection(positions, fractions, batch, lattice)  # [N]
    projection = projection - projection.min()
    projection, order = (projection + batch * (projection.max() + 1)).sort()  # graph by graph, with gaps in between
    for step in range(1, len(projection)):
        near = (projection[step:] - projection[:-step] < 4 * distance).nonzero().squeeze(1)
        if len(near) == 0:
            return None
        first, second = order[near], order[near + step]
        vectors = positions[second] - positions[first]
        if fractions is not None and lattice is not None:
            through = (fractions[second] - fractions[first]).round()
            vectors = vectors - to_cartesian(through, batch[first], lattice)
        lengths = vectors.norm(dim=1)
        if bool((lengths < distance).any()):
            pair = int(lengths.argmin())
            low, high = sorted((int(first[pair]), int(second[pair])))
            return low, high, float(lengths[pair])
    return None


def _projection(positions: Tensor, fractions: Tensor | None, batch: Tensor, lattice: Lattice | None) -> Tensor:
    """Return the projection [N] of each atom: from a coordinate in open directions, from angles in periodic ones."""
    direction = positions.new_tensor(DIRECTION)
    if fractions is None or lattice is None:
        return positions @ direction
    outside = positions - to_cartesian(fractions, batch, lattice)
    # An angle has the period of the lattice planes; open directions have none.
    spacing = 1 / lattice.reciprocal.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)  # [G, 3]
    spacing = torch.where(lattice.reciprocal.norm(dim=1) > 0, spacing, 0.0).index_select(0, batch)  # [N, 3]
    angles = 2 * math.pi * fractions - positions.new_tensor(PHASES)
    return outside @ direction + (angles.cos() * spacing / (2 * math.pi)) @ positions.new_tensor(WEIGHTS)
