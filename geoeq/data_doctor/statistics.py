"""Statistics of the structures of a data set: one row of numbers per structure, computed chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.data import Dataset
from geoeq.data_doctor.fingerprints import (
    WIDTH,
    element_counts,
    mean_fingerprints,
    neighbourhood,
    sum_per_structure,
)
from geoeq.fields import NUM_ELEMENTS

__all__ = ["ENERGIES", "Statistics", "choose_structures", "compute_statistics", "unusable"]

Indices = NDArray[np.int64]

#: Energies whose derivative by the positions is minus the forces.
ENERGIES = ("energy", "total_energy", "atomization_energy", "adsorption_energy")

#: Quick form: numbers of structures and atoms, and length of runs of consecutive structures.
_QUICK_STRUCTURES, _QUICK_ATOMS, _RUN = 1500, 10_000, 4

#: Full form: largest number of structures; of more, evenly spaced ones are taken.
_FULL_STRUCTURES = 2_000_000

#: Largest number of atoms whose edges are in memory at once.
_CHUNK_ATOMS = 4096

#: Default cutoff of fingerprints and neighbours in Å.
CUTOFF = 5.0


@dataclass(frozen=True)
class Statistics:
    """Statistics of a data set, which the checks examine.

    Attributes:
        dataset: all structures.
        indices: [S] indices of the measured structures, ascending.
        split: part -> indices, if there is a split.
        targets: requested fields, or all.
        cutoff: cutoff of neighbours in Å.
        full: whether every structure was measured (at most two million).
        columns: name -> [S]: "size", "periodic" (0 or 1), "nearest" (shortest distance, Å), "contact" (the shortest
            distance over the sum of the covalent radii), "bonds" (the median of that over the nearest neighbours of
            the atoms), "thickness" (root mean square distance from the best plane, Å), "isolated" (atoms without a
            neighbour), "neighbours" (mean), "most_neighbours"; with forces "force_rms" (of components),
            "largest_force", "net_force" (length of the sum), eV/Å, "net_share" (relative to the root of the sum of
            squares) and "torque_share" (relative to the torque of forces in random directions).
        prints: [S, WIDTH] fingerprints.
        counts: [S, 119] atoms of each element; None for points.
    """

    dataset: Dataset
    indices: Indices
    split: Mapping[str, Indices]
    targets: tuple[str, ...]
    cutoff: float
    full: bool
    columns: Mapping[str, NDArray[np.float64]]
    prints: NDArray[np.float64]
    counts: NDArray[np.int32] | None

    @property
    def energies(self) -> tuple[str, ...]:
        """Requested energies whose derivatives are the forces."""
        return tuple(name for name in ENERGIES if name in self.targets)

    def target(self, name: str) -> NDArray[np.float64]:
        """Return the values of a structure-level target for the measured structures, [S, ..]."""
        return np.asarray(self.dataset.targets[name][self.indices], dtype=np.float64)


def choose_structures(dataset: Dataset, full: bool) -> Indices:
    """Choose the structures to measure: all, or short runs of consecutive ones spread evenly over the data."""
    total = len(dataset)
    atoms = float(np.diff(dataset.ptr[:: max(1, total // 1000)]).mean()) / max(1, total // 1000)
    count = min(total, _FULL_STRUCTURES if full else min(_QUICK_STRUCTURES, max(8, int(_QUICK_ATOMS / atoms))))
    if count == total:
        return np.arange(total, dtype=np.int64)
    run = 1 if full else _RUN
    starts = np.linspace(0, total - run, max(1, count // run)).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(run))


def unusable(dataset: Dataset, indices: Indices) -> NDArray[np.bool_]:
    """Mark structures with a non-finite position or cell, or with a periodic direction without a cell vector, [S]."""
    marked = np.zeros(len(indices), dtype=bool)
    start = 0
    for batch in _batches(dataset, indices, []):
        stop = start + batch.num_graphs
        bad = ~torch.isfinite(batch.pos).all(1)
        marked[start:stop] |= np.bincount(batch.batch[bad].numpy(), minlength=stop - start) > 0
        if hasattr(batch, "cell"):
            faulty = ~torch.isfinite(batch.cell).flatten(1).all(1)
            volume = torch.linalg.det(torch.where(batch.pbc[:, :, None], batch.cell, torch.eye(3).double())).abs()
            marked[start:stop] |= (faulty | (batch.pbc.any(1) & ~(volume > 1e-6))).numpy()
        start = stop
    return marked


def compute_statistics(
    dataset: Dataset,
    indices: Indices,
    split: Mapping[str, Indices] | None = None,
    targets: tuple[str, ...] | None = None,
    cutoff: float | None = None,
    full: bool = False,
) -> Statistics:
    """Measure structures whose positions and cells are finite."""
    requested = tuple(dataset.targets) if targets is None else targets
    radius = CUTOFF if cutoff is None else cutoff
    parts: dict[str, list[Tensor]] = {}
    forces = ["forces"] if "forces" in requested and "forces" in dataset.targets else []
    for batch in _batches(dataset, indices, forces):
        for name, values in _measure(batch, radius).items():
            parts.setdefault(name, []).append(values)
    columns = {name: torch.cat(values).numpy() for name, values in parts.items()}
    prints = columns.pop("prints", np.zeros((0, WIDTH)))
    counts = columns.pop("counts", None)
    return Statistics(dataset, indices, split or {}, requested, radius, full, columns, prints, counts)


def _batches(dataset: Dataset, indices: Indices, targets: list[str]) -> Iterator[Batch]:
    ends = np.cumsum(dataset.ptr[indices + 1] - dataset.ptr[indices])
    start = 0
    while start < len(indices):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _CHUNK_ATOMS, side="right")), start + 1)
        yield dataset.batch(indices[start:stop], targets=targets, dtype=torch.float64)
        start = stop


def _measure(batch: Batch, cutoff: float) -> dict[str, Tensor]:
    count, size = batch.num_graphs, batch.ptr.diff()
    edges, lengths, prints, z = neighbourhood(batch, cutoff)
    degree = edges.row_pointers.diff()
    graph = batch.batch.index_select(0, edges.receiver)
    ratio = lengths / (_covalent_radii()[z[edges.sender]] + _covalent_radii()[z[edges.receiver]])
    nearest = torch.full((len(z),), torch.inf, dtype=torch.float64).scatter_reduce(0, edges.receiver, ratio, "amin")
    infinite = torch.full((count,), torch.inf, dtype=torch.float64)
    pbc = getattr(batch, "pbc", None)
    periodic = torch.zeros(count) if pbc is None else pbc.any(1)
    columns = {
        "size": size.double(),
        "periodic": periodic.double(),
        "nearest": infinite.scatter_reduce(0, graph, lengths, "amin"),
        "contact": infinite.scatter_reduce(0, graph, ratio, "amin"),
        "bonds": torch.stack([part.median() for part in nearest.split(size.tolist())]),
        "isolated": sum_per_structure((degree == 0).double(), batch),
        "neighbours": sum_per_structure(degree.double(), batch) / size,
        "most_neighbours": torch.zeros(count, dtype=torch.int64).scatter_reduce(0, batch.batch, degree, "amax"),
        "thickness": _thickness(batch),
        "prints": mean_fingerprints(prints, batch),
    }
    if hasattr(batch, "z"):
        columns["counts"] = element_counts(z, batch)
    return columns | (_measure_forces(batch) if hasattr(batch, "forces") else {})


def _thickness(batch: Batch) -> Tensor:
    """Return the root mean square distance of the atoms from the plane that fits them best, [G] Å."""
    size = batch.ptr.diff()[:, None]
    centred = batch.pos - (sum_per_structure(batch.pos, batch) / size).index_select(0, batch.batch)
    spread = sum_per_structure((centred[:, :, None] * centred[:, None]).flatten(1), batch) / size
    least: Tensor = torch.linalg.eigvalsh(spread.unflatten(1, (3, 3)))[:, 0]
    return least.clamp(min=0).sqrt()


def _measure_forces(batch: Batch) -> dict[str, Tensor]:
    forces, size = batch.forces, batch.ptr.diff()[:, None]
    center = sum_per_structure(batch.pos, batch) / size
    arm = batch.pos - center.index_select(0, batch.batch)
    rest = forces - (sum_per_structure(forces, batch) / size).index_select(0, batch.batch)
    squares = sum_per_structure(forces.square().sum(1), batch)
    net = sum_per_structure(forces, batch).norm(dim=1)
    torque = sum_per_structure(torch.linalg.cross(arm, rest), batch).norm(dim=1)
    scale = sum_per_structure(arm.square().sum(1) * rest.square().sum(1), batch).sqrt()
    largest = torch.zeros(batch.num_graphs, dtype=torch.float64)
    return {
        "force_rms": (squares / (3 * size[:, 0])).sqrt(),
        "largest_force": largest.scatter_reduce(0, batch.batch, forces.norm(dim=1), "amax"),
        "net_force": net,
        "net_share": net / squares.sqrt().clamp(min=1e-12),
        "torque_share": torque / scale.clamp(min=1e-12),
    }


def _covalent_radii() -> Tensor:
    """Return covalent radii by atomic number, [119] Å; 0.7 Å for points and where none is known."""
    from ase.data import covalent_radii

    table = torch.full((NUM_ELEMENTS,), 0.7, dtype=torch.float64)
    known = torch.from_numpy(np.nan_to_num(covalent_radii[:NUM_ELEMENTS], nan=0.7))
    table[1 : len(known)] = known[1:]
    return table
