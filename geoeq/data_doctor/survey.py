"""The chart of a data set: a few numbers of each structure that is looked at, measured chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.data import Dataset
from geoeq.data_doctor.fingerprints import WIDTH, atom_fingerprints
from geoeq.fields import NUM_ELEMENTS
from geoeq.geometry.neighbors import Edges, edge_lengths, edge_vectors, radius_edges

__all__ = ["ENERGIES", "Chart", "choose_places", "make_chart", "sorted_atom_prints", "structure_prints", "unusable"]

Places = NDArray[np.int64]

#: Energies whose derivative by the positions is minus the forces.
ENERGIES = ("energy", "total_energy", "atomization_energy", "adsorption_energy")

#: Of the quick form: structures, atoms, and structures that follow each other in the data.
_QUICK_STRUCTURES, _QUICK_ATOMS, _RUN = 1500, 10_000, 4

#: Of the full form: beyond so many, structures are taken evenly from all.
_FULL_STRUCTURES = 2_000_000

#: Atoms whose edges are in memory at once.
_CHUNK_ATOMS = 4096

#: Atomic numbers are looked at in all structures if there are no more atoms.
_ALL_ATOMS = 20_000_000

#: Distances at which fingerprints and neighbours end where no cutoff is given, Å.
CUTOFF = 5.0


@dataclass(frozen=True)
class Chart:
    """What the checks look at.

    Attributes:
        dataset: all structures.
        places: [S] of the structures that were measured, ascending.
        split: part -> places, where there is a split.
        targets: the fields that are wanted, or all.
        cutoff: Å.
        full: every structure was measured (of very large data sets, two million).
        columns: name -> [S]: "size", "periodic" (0 or 1), "nearest" (shortest distance, Å), "contact" (the shortest
            distance over the sum of the covalent radii), "bonds" (the median of that over the nearest neighbours of
            the atoms), "isolated" (atoms without a neighbour), "neighbours" (mean), "most_neighbours"; with forces
            "force_rms" (of components), "largest_force", "net_force" (length of the sum), eV/Å, "net_share" (of the
            root of the sum of squares) and "torque_share" (of the torque that forces in random directions have).
        prints: [S, WIDTH] fingerprints.
        counts: [S, 119] atoms of each element; None for points.
    """

    dataset: Dataset
    places: Places
    split: Mapping[str, Places]
    targets: tuple[str, ...]
    cutoff: float
    full: bool
    columns: Mapping[str, NDArray[np.float64]]
    prints: NDArray[np.float64]
    counts: NDArray[np.int32] | None

    @property
    def energies(self) -> tuple[str, ...]:
        """The wanted energies whose derivative the forces are."""
        return tuple(name for name in ENERGIES if name in self.targets)

    def target(self, name: str) -> NDArray[np.float64]:
        """The values of a target of structures, of those that were measured, [S, ..]."""
        return np.asarray(self.dataset.targets[name][self.places], dtype=np.float64)


def choose_places(dataset: Dataset, full: bool) -> Places:
    """The structures to measure: all, or short runs of neighbours that are spread evenly over the data."""
    total = len(dataset)
    atoms = float(np.diff(dataset.ptr[:: max(1, total // 1000)]).mean()) / max(1, total // 1000)
    wanted = min(total, _FULL_STRUCTURES if full else min(_QUICK_STRUCTURES, max(8, int(_QUICK_ATOMS / atoms))))
    if wanted == total:
        return np.arange(total, dtype=np.int64)
    run = 1 if full else _RUN
    starts = np.linspace(0, total - run, max(1, wanted // run)).astype(np.int64)
    return np.unique(starts[:, None] + np.arange(run))


def unusable(dataset: Dataset, places: Places) -> NDArray[np.bool_]:
    """Which structures have a position or a cell that is not finite, or a periodic direction without a cell, [S]."""
    found = np.zeros(len(places), dtype=bool)
    start = 0
    for batch in _batches(dataset, places, []):
        stop = start + batch.num_graphs
        bad = ~torch.isfinite(batch.pos).all(1)
        found[start:stop] |= np.bincount(batch.batch[bad].numpy(), minlength=stop - start) > 0
        if hasattr(batch, "cell"):
            faulty = ~torch.isfinite(batch.cell).flatten(1).all(1)
            volume = torch.linalg.det(torch.where(batch.pbc[:, :, None], batch.cell, torch.eye(3).double())).abs()
            found[start:stop] |= (faulty | (batch.pbc.any(1) & ~(volume > 1e-6))).numpy()
        start = stop
    return found


def make_chart(
    dataset: Dataset,
    places: Places,
    split: Mapping[str, Places] | None = None,
    targets: tuple[str, ...] | None = None,
    cutoff: float | None = None,
    full: bool = False,
) -> Chart:
    """Measure the structures at ``places``, whose positions and cells are finite."""
    wanted = tuple(dataset.targets) if targets is None else targets
    radius = CUTOFF if cutoff is None else cutoff
    parts: dict[str, list[Tensor]] = {}
    forces = ["forces"] if "forces" in wanted and "forces" in dataset.targets else []
    for batch in _batches(dataset, places, forces):
        for name, values in _measure(batch, radius).items():
            parts.setdefault(name, []).append(values)
    whole = {name: torch.cat(values).numpy() for name, values in parts.items()}
    prints = whole.pop("prints", np.zeros((0, WIDTH)))
    counts = whole.pop("counts", None)
    return Chart(dataset, places, split or {}, wanted, radius, full, whole, prints, counts)


def sorted_atom_prints(dataset: Dataset, places: Places, cutoff: float) -> list[NDArray[np.float64]]:
    """The fingerprints of the atoms of each structure, by element, each entry in ascending order, [n, WIDTH]."""
    batch = dataset.batch(places, targets=[], dtype=torch.float64)
    _, _, prints, z = _neighbourhood(batch, cutoff)
    entries = 10.0 * z[:, None] + prints  # a fingerprint is between -2 and 4, so that elements stay together
    return [part.sort(0).values.numpy() for part in entries.split(batch.ptr.diff().tolist())]


def structure_prints(batch: Batch, cutoff: float) -> tuple[Tensor, Tensor]:
    """The fingerprint of each structure, the mean of those of its atoms, and how many atoms of each element it has.

    Shapes:
        Returns [G, WIDTH] and [G, 119].
    """
    _, _, prints, z = _neighbourhood(batch, cutoff)
    return _prints_of(prints, batch), _counts(z, batch)


def _batches(dataset: Dataset, places: Places, targets: list[str]) -> Iterator[Batch]:
    ends = np.cumsum(dataset.ptr[places + 1] - dataset.ptr[places])
    start = 0
    while start < len(places):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + _CHUNK_ATOMS, side="right")), start + 1)
        yield dataset.batch(places[start:stop], targets=targets, dtype=torch.float64)
        start = stop


def _measure(batch: Batch, cutoff: float) -> dict[str, Tensor]:
    count, size = batch.num_graphs, batch.ptr.diff()
    edges, lengths, prints, z = _neighbourhood(batch, cutoff)
    degree = edges.row_pointers.diff()
    graph = batch.batch.index_select(0, edges.receiver)
    ratio = lengths / (radii()[z[edges.sender]] + radii()[z[edges.receiver]])
    nearest = torch.full((len(z),), torch.inf, dtype=torch.float64).scatter_reduce(0, edges.receiver, ratio, "amin")
    infinite = torch.full((count,), torch.inf, dtype=torch.float64)
    pbc = getattr(batch, "pbc", None)
    periodic = torch.zeros(count) if pbc is None else pbc.any(1)
    found = {
        "size": size.double(),
        "periodic": periodic.double(),
        "nearest": infinite.scatter_reduce(0, graph, lengths, "amin"),
        "contact": infinite.scatter_reduce(0, graph, ratio, "amin"),
        "bonds": torch.stack([part.median() for part in nearest.split(size.tolist())]),
        "isolated": _sums((degree == 0).double(), batch),
        "neighbours": _sums(degree.double(), batch) / size,
        "most_neighbours": torch.zeros(count, dtype=torch.int64).scatter_reduce(0, batch.batch, degree, "amax"),
        "prints": _prints_of(prints, batch),
    }
    if hasattr(batch, "z"):
        found["counts"] = _counts(z, batch)
    return found | (_of_forces(batch) if hasattr(batch, "forces") else {})


def _neighbourhood(batch: Batch, cutoff: float) -> tuple[Edges, Tensor, Tensor, Tensor]:
    """Edges, their lengths [E], fingerprints of the atoms [N, WIDTH], and elements [N], zero where there is none."""
    cell, pbc = getattr(batch, "cell", None), getattr(batch, "pbc", None)
    edges = radius_edges(batch.pos, batch.ptr, cutoff, cell, pbc)
    lengths = edge_lengths(edge_vectors(batch.pos, edges.sender, edges.receiver, edges.shifts, cell, batch.batch))
    numbers = getattr(batch, "z", None)
    z = torch.zeros(len(batch.pos), dtype=torch.int64) if numbers is None else numbers.clamp(0, NUM_ELEMENTS - 1)
    return edges, lengths, atom_fingerprints(z, lengths, edges.sender, edges.receiver, cutoff), z


def _prints_of(prints: Tensor, batch: Batch) -> Tensor:
    mean: Tensor = _sums(prints, batch) / batch.ptr.diff()[:, None]
    return mean


def _counts(z: Tensor, batch: Batch) -> Tensor:
    flat = torch.bincount(batch.batch * NUM_ELEMENTS + z, minlength=batch.num_graphs * NUM_ELEMENTS)
    return flat.view(batch.num_graphs, NUM_ELEMENTS).int()


def _of_forces(batch: Batch) -> dict[str, Tensor]:
    forces, size = batch.forces, batch.ptr.diff()[:, None]
    center = _sums(batch.pos, batch) / size
    arm = batch.pos - center.index_select(0, batch.batch)
    rest = forces - (_sums(forces, batch) / size).index_select(0, batch.batch)
    squares = _sums(forces.square().sum(1), batch)
    net, torque = _sums(forces, batch).norm(dim=1), _sums(torch.linalg.cross(arm, rest), batch).norm(dim=1)
    scale = _sums(arm.square().sum(1) * rest.square().sum(1), batch).sqrt()
    return {
        "force_rms": (squares / (3 * size[:, 0])).sqrt(),
        "largest_force": torch.zeros(batch.num_graphs, dtype=torch.float64).scatter_reduce(
            0, batch.batch, forces.norm(dim=1), "amax"
        ),
        "net_force": net,
        "net_share": net / squares.sqrt().clamp(min=1e-12),
        "torque_share": torque / scale.clamp(min=1e-12),
    }


def _sums(values: Tensor, batch: Batch) -> Tensor:
    return values.new_zeros(batch.num_graphs, *values.shape[1:]).index_add_(0, batch.batch, values)


def radii() -> Tensor:
    """Covalent radii by atomic number, [119] Å; 0.7 Å for points and where none is known."""
    from ase.data import covalent_radii

    table = torch.full((NUM_ELEMENTS,), 0.7, dtype=torch.float64)
    known = torch.from_numpy(np.nan_to_num(covalent_radii[:NUM_ELEMENTS], nan=0.7))
    table[1 : len(known)] = known[1:]
    return table
