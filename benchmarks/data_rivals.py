"""The same structures as ASE and PyTorch Geometric keep and read them, for ``data.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.trajectory import Trajectory
from torch.utils.data import RandomSampler
from torch_geometric.data import Batch, Data, InMemoryDataset, OnDiskDataset
from torch_geometric.loader import DataLoader

from geoeq.data.dataset import Dataset

__all__ = ["InMemory", "OnDisk", "Reading", "as_atoms", "as_list", "ase_readings", "pyg_loader"]

#: Reads all structures once, in an order of its own.
Reading = Callable[[], Iterable[object]]


def as_list(dataset: Dataset, targets: Sequence[str], cutoff: float | None = None) -> list[Data]:
    """All structures as PyG would hold them."""
    whole = dataset.batch(range(len(dataset)), cutoff=cutoff, targets=targets)
    names = [name for name in ("z", "pos", "cell", "pbc", "edge_index", *targets) if name in whole]
    return [Data(**{name: data[name].clone() for name in names}) for data in whole.to_data_list()]


def as_atoms(data: Data, energy: str) -> Atoms:
    """A structure as ASE would hold it, with its energy and, where it has them, forces."""
    periodic = {"cell": data.cell[0].numpy(), "pbc": data.pbc[0].numpy()} if "cell" in data else {}
    atoms = Atoms(data.z.numpy(), data.pos.double().numpy(), **periodic)
    results = {"energy": float(data[energy])}
    if "forces" in data:
        results["forces"] = data.forces.double().numpy()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def ase_readings(structures: Sequence[Atoms], folder: Path) -> dict[str, Reading]:
    """What ASE can do with the three formats that are most common: one after the other, and at random."""
    folder.mkdir()
    text, table, trajectory = (folder / name for name in ("all.extxyz", "all.db", "all.traj"))
    ase.io.write(text, structures)
    ase.io.write(trajectory, structures)
    with ase.db.connect(table) as database:
        for atoms in structures:
            database.write(atoms)
    order = np.random.default_rng(0).permutation(len(structures)).tolist()

    def rows() -> Iterator[Atoms]:
        for row in ase.db.connect(table).select():
            yield row.toatoms()

    def random_rows() -> Iterator[Atoms]:
        database = ase.db.connect(table)
        for place in order:
            yield database.get(id=place + 1).toatoms()

    def random_steps() -> Iterator[Atoms]:
        with Trajectory(trajectory) as steps:
            for place in order:
                yield steps[place]

    return {
        "ASE, .extxyz, in order": lambda: ase.io.iread(text, index=":"),
        "ASE, .db, in order": rows,
        "ASE, .db, at random": random_rows,
        "ASE, .traj, in order": lambda: ase.io.iread(trajectory, index=":"),
        "ASE, .traj, at random": random_steps,
    }


class InMemory(InMemoryDataset):
    """PyG's data set in memory, collated as PyG does."""

    def __init__(self, structures: list[Data]) -> None:
        super().__init__()
        self.data, self.slices = self.collate(structures)


class OnDisk(OnDiskDataset):
    """PyG's data set in a table of SQLite, with a schema, so that nothing is pickled."""

    def __init__(self, root: Path, structures: Sequence[Data]) -> None:
        schema: dict[str, Any] = {
            name: {"dtype": value.dtype, "size": (-1, *value.shape[1:])}
            for name, value in structures[0].to_dict().items()
        }
        self.names = tuple(schema)
        super().__init__(str(root), schema=schema)
        self.extend(structures, batch_size=1000)

    def serialize(self, data: Data) -> dict[str, Any]:
        return {name: data[name] for name in self.names}

    def deserialize(self, data: dict[str, Any]) -> Data:
        return Data(**data)


def pyg_loader(dataset: Any, batch_size: int, workers: int = 0, samples: int | None = None) -> Iterable[Batch]:
    """PyG's own loader: an epoch at random, or ``samples`` structures, some of them several times."""
    sampler = RandomSampler(dataset, replacement=samples is not None, num_samples=samples)
    return DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers)
