"""Fingerprints of structures that are invariant to rotation, reflection, translation and the order of atoms."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.data import Dataset
from geoeq.fields import NUM_ELEMENTS
from geoeq.geometry.neighbors import Edges, edge_lengths, edge_vectors, radius_edges

__all__ = [
    "WIDTH",
    "atom_fingerprints",
    "element_counts",
    "mean_fingerprints",
    "neighbourhood",
    "sorted_atom_prints",
    "structure_prints",
    "sum_per_structure",
]

#: Length of a fingerprint.
WIDTH = 8


def atom_fingerprints(numbers: Tensor, lengths: Tensor, sender: Tensor, receiver: Tensor, cutoff: float) -> Tensor:
    """Compute a fingerprint of each atom: weighted means over its neighbours of waves in the distance.

    Each neighbour j counts with a weight of its element and with an envelope that is zero at the cutoff, so that the
    fingerprint is continuous; if every atom moves by δ, no entry changes by more than about 30 δ/Å.

    Shapes:
        numbers: [N]. lengths, sender, receiver: [E]. Returns [N, WIDTH].
    """
    z = numbers.to(lengths.dtype)
    inside = (0.5 * (1 + (math.pi * lengths / cutoff).cos())).square()  # [E]
    orders = torch.arange(1, WIDTH + 1, dtype=lengths.dtype)  # [WIDTH]
    # Weights of elements: fixed numbers between 1/2 and 3/2 that no two elements share in all entries.
    weight = 1 + 0.5 * (z[:, None] * (orders * 1.6180339887)).sin()  # [N, WIDTH]
    waves = (lengths[:, None] * (orders * (math.pi / cutoff)) + orders).sin()  # [E, WIDTH]
    summed = lengths.new_zeros(len(z), WIDTH)
    summed.index_add_(0, receiver, weight.index_select(0, sender) * waves * inside[:, None])
    total = lengths.new_full((len(z),), 0.1).index_add_(0, receiver, inside)
    return weight * (1 + summed / total[:, None])


def structure_prints(batch: Batch, cutoff: float) -> tuple[Tensor, Tensor]:
    """Return the mean fingerprint of the atoms of each structure, and its number of atoms per element.

    Shapes:
        Returns [G, WIDTH] and [G, 119].
    """
    _, _, prints, z = neighbourhood(batch, cutoff)
    return mean_fingerprints(prints, batch), element_counts(z, batch)


def sorted_atom_prints(dataset: Dataset, indices: NDArray[np.int64], cutoff: float) -> list[NDArray[np.float64]]:
    """Return the atom fingerprints of each structure by element, each entry in ascending order, [n, WIDTH]."""
    batch = dataset.batch(indices, targets=[], dtype=torch.float64)
    _, _, prints, z = neighbourhood(batch, cutoff)
    entries = 10.0 * z[:, None] + prints  # fingerprints are between -2 and 4, so that elements stay together
    return [part.sort(0).values.numpy() for part in entries.split(batch.ptr.diff().tolist())]


def neighbourhood(batch: Batch, cutoff: float) -> tuple[Edges, Tensor, Tensor, Tensor]:
    """Return edges, their lengths [E], atom fingerprints [N, WIDTH], and elements [N] (zero for points)."""
    cell, pbc = getattr(batch, "cell", None), getattr(batch, "pbc", None)
    edges = radius_edges(batch.pos, batch.ptr, cutoff, cell, pbc)
    lengths = edge_lengths(edge_vectors(batch.pos, edges.sender, edges.receiver, edges.shifts, cell, batch.batch))
    numbers = getattr(batch, "z", None)
    z = torch.zeros(len(batch.pos), dtype=torch.int64) if numbers is None else numbers.clamp(0, NUM_ELEMENTS - 1)
    return edges, lengths, atom_fingerprints(z, lengths, edges.sender, edges.receiver, cutoff), z


def mean_fingerprints(prints: Tensor, batch: Batch) -> Tensor:
    """Average atom fingerprints [N, WIDTH] over each structure, [G, WIDTH]."""
    mean: Tensor = sum_per_structure(prints, batch) / batch.ptr.diff()[:, None]
    return mean


def element_counts(z: Tensor, batch: Batch) -> Tensor:
    """Count the atoms of each element in each structure, [G, 119]."""
    flat = torch.bincount(batch.batch * NUM_ELEMENTS + z, minlength=batch.num_graphs * NUM_ELEMENTS)
    return flat.view(batch.num_graphs, NUM_ELEMENTS).int()


def sum_per_structure(values: Tensor, batch: Batch) -> Tensor:
    """Sum rows [N, ..] over each structure, [G, ..]."""
    return values.new_zeros(batch.num_graphs, *values.shape[1:]).index_add_(0, batch.batch, values)
