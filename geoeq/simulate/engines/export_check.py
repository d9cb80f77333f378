"""Structures on which an exported potential is compared with the model that it was made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Batch, Data

from geoeq.data.structures import Structure, to_data
from geoeq.geometry.random_structures import random_batch
from geoeq.models import Model

__all__ = ["structures_to_compare"]

#: Numbers of atoms for which a graph is compared with the model: a crowd, a pair, atoms without edges, one atom.
_SIZES = ((5, 9, 11, 3, 7, 13, 2), (23, 31), (1, 1, 4), (17,), (2,), (1,))


def structures_to_compare(potential: Model, given: Sequence[Atoms]) -> Iterator[Data]:
    """Random ones of the elements of a model, open and (where it has a cutoff) periodic, and those given.

    The last is small and random.
    """
    device = next(potential.parameters()).device
    known = torch.tensor(potential.elements or (1, 6, 7, 8, 16))
    periodic = (True, False) if potential.cutoff is not None else (False,)
    for seed, sizes in enumerate(_SIZES):
        for repeats in periodic:
            batch = random_batch(sizes, periodic=repeats, seed=seed)
            yield Batch.from_data_list([_bare(data, known) for data in batch.to_data_list()]).to(device)
    for atoms in given:
        yield to_data(Structure(atoms, "atoms"), torch.float64, periodic=bool(atoms.pbc.any())).to(device)
    small = random_batch((4, 2), periodic=periodic[0], seed=len(_SIZES))
    yield Batch.from_data_list([_bare(data, known) for data in small.to_data_list()]).to(device)


def _bare(data: Data, known: Tensor) -> Data:
    """With elements that the model knows, positions and cell alone."""
    keep = Data(z=known[data.z % len(known)], pos=data.pos)
    if "cell" in data:
        keep.cell, keep.pbc = data.cell, data.pbc
    return keep
