"""Which of many structures are the same, turned, moved or in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch_geometric.data import Batch

from geoeq.data.structures import to_batch
from geoeq.data_doctor.duplicates import same_structures
from geoeq.data_doctor.survey import structure_prints

__all__ = ["batches", "fingerprints", "first_of_each"]

_BATCH = 64

#: Of neighbours, in Å.
_CUTOFF = 5.0


def first_of_each(structures: Sequence[Atoms]) -> NDArray[np.int64]:
    """Places of the structures of which none is the same as an earlier one.

    Two are the same where their atoms and invariant fingerprints are, as they are where all atoms agree within 1e-4 Å:
    ``geoeq.data_doctor`` tells copies by them.
    """
    prints, counts = [], []
    for batch in batches(structures, torch.float64):
        found, composition = fingerprints(batch)
        prints.append(found)
        counts.append(composition)
    sizes = np.array([len(atoms) for atoms in structures], dtype=np.float64)
    pairs = same_structures(np.concatenate(prints), np.concatenate(counts), sizes)
    copies = np.zeros(len(structures), dtype=bool)
    copies[pairs[:, 1]] = True  # of each pair the later one
    return np.flatnonzero(~copies)


def fingerprints(batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Invariant numbers of each structure, and its atoms of each element, [G, W] and [G, 119]."""
    prints, counts = structure_prints(batch, _CUTOFF)
    return prints.numpy(), counts.numpy()


def batches(structures: Sequence[Atoms], dtype: torch.dtype) -> Iterator[Batch]:
    """Yield batches of model inputs."""
    for start in range(0, len(structures), _BATCH):
        yield to_batch(structures[start : start + _BATCH], dtype)
