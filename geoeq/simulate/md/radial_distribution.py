"""Radial distribution functions of simulation frames."""

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

#: Default largest distance in Å.
REACH = 8.0

#: Largest number of element pairs.
PAIRS = 3


@dataclass(frozen=True)
class RadialDistribution:
    """Radial distribution of pairs of elements.

    Attributes:
        distances: centres of the bins, [B] Å.
        values: "O-H" -> [B]. For structures periodic in three directions g(r), which is 1 without order; for others,
            which have no density, the number of neighbours per atom and Å.
        normalized: whether the values are g(r).
    """

    distances: Values
    values: dict[str, Values]
    normalized: bool


def radial_distribution(frames: Sequence[Atoms], reach: float = REACH, bins: int = 160) -> RadialDistribution:
    """Average the radial distribution over frames, for the most frequent pairs of elements.

    ``g_ab(r) = V n_ab(r) / (N_a N_b 4 π r² dr)``, where n_ab(r) is the number of pairs in a shell, including images;
    each frame uses its own volume.

    Args:
        frames: frames of the same atoms.
        reach: largest distance in Å.
        bins: number of histogram bins.

    Raises:
        InputError: there are no frames.
    """
    if not frames:
        raise InputError("A radial distribution needs at least one frame; there are none.")
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
    candidates = [
        (-int(counts[i] * counts[j]), int(elements[i]), int(elements[j]))
        for i in range(len(elements))
        for j in range(i, len(elements))
        if i != j or counts[i] > 1
    ]
    return [(a, b) for _, a, b in sorted(candidates)[:PAIRS]]


def _distances(frame: Atoms, reach: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Values]:
    positions = torch.as_tensor(frame.positions, dtype=torch.float64)
    cell, pbc = torch.as_tensor(frame.cell.array[None]), torch.as_tensor(frame.pbc[None])
    periodic = (cell, pbc) if frame.pbc.any() else (None, None)
    edges = radius_edges(positions, torch.tensor([0, len(positions)]), reach, *periodic)
    batch = edges.sender.new_zeros(len(positions))
    vectors = edge_vectors(positions, edges.sender, edges.receiver, edges.shifts, periodic[0], batch)
    return edges.sender.numpy(), edges.receiver.numpy(), edge_lengths(vectors).numpy()
