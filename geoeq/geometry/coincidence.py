"""Atoms at the same place, found without trying all pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from geoeq.geometry.lattice import Lattice, to_cartesian, to_fractional

__all__ = ["coincident_atoms"]

#: A direction along which no structure that anybody builds has its planes of atoms.
DIRECTION = (0.5318, 0.3174, 0.7851)

#: Where the three fractional coordinates begin, and how much they count; at most 1.
PHASES, WEIGHTS = (0.713, 1.917, 2.639), (1.0, 0.871, 0.737)


def coincident_atoms(
    positions: Tensor, batch: Tensor, lattice: Lattice | None, distance: float
) -> tuple[int, int, float] | None:
    """Two atoms of one graph that are closer than ``distance``, through the periodic boundary or not.

    Every atom gets one number that changes by no more than four times the distance that the atom moves,
    and not at all by a lattice vector. Close atoms are then close in the sorted numbers.

    Shapes:
        positions: [N, 3] Å, finite. batch: [N], sorted.

    Returns:
        The two atoms, counted over the batch, and their distance in Å; None if there are no such atoms.
    """
    if len(positions) < 2:
        return None
    positions = positions.detach().double()
    fractions = None if lattice is None else to_fractional(positions, batch, lattice)
    place = _place(positions, fractions, batch, lattice)  # [N]
    place = place - place.min()
    place, order = (place + batch * (place.max() + 1)).sort()  # graph by graph, with gaps between
    for step in range(1, len(place)):
        near = (place[step:] - place[:-step] < 4 * distance).nonzero().squeeze(1)
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


def _place(positions: Tensor, fractions: Tensor | None, batch: Tensor, lattice: Lattice | None) -> Tensor:
    """The number [N] of each atom: a coordinate where the graph is open, angles where it is periodic."""
    direction = positions.new_tensor(DIRECTION)
    if fractions is None or lattice is None:
        return positions @ direction
    outside = positions - to_cartesian(fractions, batch, lattice)
    # An angle turns once over the spacing of the lattice planes; open directions have none.
    spacing = 1 / lattice.reciprocal.norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)  # [G, 3]
    spacing = torch.where(lattice.reciprocal.norm(dim=1) > 0, spacing, 0.0).index_select(0, batch)  # [N, 3]
    angles = 2 * math.pi * fractions - positions.new_tensor(PHASES)
    return outside @ direction + (angles.cos() * spacing / (2 * math.pi)) @ positions.new_tensor(WEIGHTS)
