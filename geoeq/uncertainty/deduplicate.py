"""Remove structures that are equal up to rotation, translation and the order of atoms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch_geometric.data import Batch

from geoeq.data.structures import to_batch
from geoeq.data_doctor.duplicates import same_structures
from geoeq.data_doctor.fingerprints import structure_prints

__all__ = ["batches", "fingerprints", "first_of_each"]

_BATCH = 64

#: Cutoff radius of the fingerprints, in Å.
_CUTOFF = 5.0


def first_of_each(structures: Sequence[Atoms]) -> NDArray[np.int64]:
    """Return the indices of the structures that equal no earlier one.

    Two structures are equal if their atoms and invariant fingerprints are, which holds if all atoms agree within
    1e-4 Å; ``geoeq.data_doctor`` detects duplicates in the same way.
    """
    prints, counts = [], []
    for batch in batches(structures, torch.float64):
        batch_prints, batch_counts = fingerprints(batch)
        prints.append(batch_prints)
        counts.append(batch_counts)
    sizes = np.array([len(atoms) for atoms in structures], dtype=np.float64)
    pairs = same_structures(np.concatenate(prints), np.concatenate(counts), sizes)
    copies = np.zeros(len(structures), dtype=bool)
    copies[pairs[:, 1]] = True  # the later one of each pair
    return np.flatnonzero(~copies)


def fingerprints(batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the invariant fingerprint of each structure, and its number of atoms per element, [G, W] and [G, 119]."""
    prints, counts = structure_prints(batch, _CUTOFF)
    return prints.numpy(), counts.numpy()


def batches(structures: Sequence[Atoms], dtype: torch.dtype) -> Iterator[Batch]:
    """Yield batches of model inputs."""
    for start in range(0, len(structures), _BATCH):
        yield to_batch(structures[start : start + _BATCH], dtype)
