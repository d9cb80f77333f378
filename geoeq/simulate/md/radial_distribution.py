"""Radial distribution functions of the frames of a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from geoeq.errors import InputError
from geoeq.geometry.neighbors import edge_lengths, edge_vectors, radius_edges

__all__ = ["REACH", "RadialDistribution", "radial_distribution"]

Values = NDArray[np.float64]

#: In Å.
REACH = 8.0

#: Pairs of elements that are drawn at the most.
PAIRS = 3


@dataclass(frozen=True)
class RadialDistribution:
    """How far atoms are from each other.

    Attributes:
        distances: the middles of the bins, [B] Å.
        values: "O-H" -> [B]. Of periodic structures g(r), which is 1 where nothing is ordered; of others, which have no
            density, the number of atoms per Å around an atom.
        normalized: whether it is g(r).
    """

    distances: Values
    values: dict[str, Values]
    normalized: bool


def radial_distribution(frames: Sequence[Atoms], reach: float = REACH, bins: int = 160) -> RadialDistribution:
    """The mean over frames, for the pairs of elements of which there are most.

    ``g_ab(r) = V n_ab(r) / (N_a N_b 4 π r² dr)``, where n_ab(r) is the number of pairs in a shell, images among them;
    each frame is taken with its own volume.

    Args:
        frames: of the same atoms.
        reach: up to this distance, in Å.
        bins: of the histogram.

    Raises:
        InputError: there are no frames.
    """
    if not frames:
        raise InputError("A radial distribution is that of one frame or more; there are none.")
    first = frames[0]
    normalized = bool(first.pbc.all())
    edges = np.linspace(0.0, reach, bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3) if normalized else np.diff(edges)
    pairs = _pairs(first.numbers)
    sums = {pair: np.zeros(bins) for pair in pairs}
    for frame in frames:
        sender, receiver, lengths = _distances(frame, reach)
        for a, b in pairs:
            chosen = (frame.numbers[receiver] == a) & (frame.numbers[sender] == b)
            counts = np.histogram(lengths[chosen], edges)[0] / shells / max((frame.numbers == a).sum(), 1)
            sums[a, b] += counts * frame.get_volume() / (frame.numbers == b).sum() if normalized else counts
    values = {f"{chemical_symbols[a]}-{chemical_symbols[b]}": sums[a, b] / len(frames) for a, b in pairs}
    return RadialDistribution((edges[1:] + edges[:-1]) / 2, values, normalized)


def _pairs(numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    elements, counts = np.unique(numbers, return_counts=True)
    several = [
        (-int(counts[i] * counts[j]), int(elements[i]), int(elements[j]))
        for i in range(len(elements))
        for j in range(i, len(elements))
        if i != j or counts[i] > 1
    ]
    return [(a, b) for _, a, b in sorted(several)[:PAIRS]]


def _distances(frame: Atoms, reach: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Values]:
    positions = torch.as_tensor(frame.positions, dtype=torch.float64)
    cell, pbc = torch.as_tensor(frame.cell.array[None]), torch.as_tensor(frame.pbc[None])
    periodic = (cell, pbc) if frame.pbc.any() else (None, None)
    found = radius_edges(positions, torch.tensor([0, len(positions)]), reach, *periodic)
    batch = found.sender.new_zeros(len(positions))
    vectors = edge_vectors(positions, found.sender, found.receiver, found.shifts, periodic[0], batch)
    return found.sender.numpy(), found.receiver.numpy(), edge_lengths(vectors).numpy()
