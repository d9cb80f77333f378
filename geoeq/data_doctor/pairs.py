"""Pairs of close structures of the same atoms: displacements, strain, and work of the forces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from geoeq.data_doctor.statistics import Statistics

__all__ = ["Pairs", "close_pairs"]

Values = NDArray[np.float64]

#: Largest number of structures of a group, which are compared with each other, and number of such groups.
_GROUP, _GROUPS = 96, 12

#: Largest number of atoms in all structures of a group.
_GROUP_ATOMS = 12_000

#: Largest strain between equal cells.
_SAME_CELL = 1e-5

#: Largest strain that counts as small.
_LARGEST_STRAIN = 0.15

#: Number of nearest structures paired with each structure.
_PARTNERS = 2


#: No pairs, as columns.
_EMPTY: dict[str, NDArray[np.generic]] = {
    **{name: np.zeros(0, dtype=np.int64) for name in ("first", "second", "atoms")},
    **{name: np.zeros(0) for name in ("work", "bend", "moved", "volume")},
    "strain": np.zeros((0, 3, 3)),
}


@dataclass(frozen=True)
class Pairs:
    """P pairs of structures.

    Attributes:
        first, second: [P] indices in the data set.
        work: [P] work of the forces from the first to the second structure by the trapezoidal rule, eV.
        bend: [P] half of the difference of that work with the forces at either end, eV; the error of the rule is a
            fraction of it that grows with the distance.
        moved: [P] root mean square displacement of the atoms besides the strain, Å.
        strain: [P, 3, 3] strain of the cell; zero if nothing is periodic.
        volume: [P] volume in Å³; 1 if nothing is periodic.
        atoms: [P] number of atoms of each structure.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    work: Values
    bend: Values
    moved: Values
    strain: Values
    volume: Values
    atoms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    @property
    def strained(self) -> NDArray[np.bool_]:
        """Pairs whose cells differ, [P]."""
        return np.asarray(np.abs(self.strain).max((1, 2)) > _SAME_CELL)


def close_pairs(statistics: Statistics) -> Pairs:
    """Pair each structure with the nearest ones, some with the same cell and some with another cell.

    Structures have the same atoms in the same order; open ones are superposed by a rotation (Kabsch).
    """
    parts = [_EMPTY, *(_group_pairs(statistics, group) for group in _groups(statistics))]
    return Pairs(**{name: np.concatenate([part[name] for part in parts]) for name in _EMPTY})


def _groups(statistics: Statistics) -> list[NDArray[np.int64]]:
    if statistics.dataset.numbers is None:
        return []
    by_elements: dict[bytes, list[int]] = {}
    ptr = statistics.dataset.ptr
    for index in statistics.indices.tolist():
        key = np.asarray(statistics.dataset.numbers[ptr[index] : ptr[index + 1]]).tobytes()
        by_elements.setdefault(key, []).append(index)
    groups = sorted((group for group in by_elements.values() if len(group) > 2), key=len, reverse=True)[:_GROUPS]
    chosen = []
    for group in groups:
        atoms = int(ptr[group[0] + 1] - ptr[group[0]])
        most = int(min(_GROUP, max(4, _GROUP_ATOMS // atoms)))
        blocks = np.array_split(np.array(group), max(1, -(-len(group) // most)))
        # One half consecutive in the data, the other spread over all of it.
        spread = np.array(group)[np.linspace(0, len(group) - 1, most // 2).astype(int)]
        chosen.append(
            np.unique(np.concatenate([blocks[len(blocks) // 2][: most // 2 + most % 2], spread]))
            if len(group) > most
            else np.array(group)
        )
    return chosen


def _group_pairs(statistics: Statistics, group: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    batch = statistics.dataset.batch(group, targets=["forces"], dtype=torch.float64)
    count, atoms = len(group), len(batch.pos) // len(group)
    positions = batch.pos.view(count, atoms, 3).numpy()
    forces = batch.forces.view(count, atoms, 3).numpy()
    one, two = np.triu_indices(count, 1)
    periodic = getattr(batch, "pbc", None)
    if periodic is not None and bool(periodic.any()):
        cells, pbc = batch.cell.numpy(), periodic.numpy()
        same = (pbc[one] == pbc[two]).all(1)
        one, two = one[same], two[same]
        compare = partial(_periodic, positions, forces, cells, pbc)
    else:
        compare = partial(_open, positions, forces)
    step = max(1, 400_000 // atoms)
    parts = [compare(one[k : k + step], two[k : k + step]) for k in range(0, len(one), step)]
    if not parts:
        return _EMPTY
    work, bend, moved, strain, volume = (np.concatenate(column) for column in zip(*parts))
    size = np.abs(strain).max((1, 2))
    chosen: set[int] = set()
    for kind in (size <= _SAME_CELL, (size > _SAME_CELL) & (size < _LARGEST_STRAIN)):
        rows = np.flatnonzero(kind & ((moved > 1e-4) | (size > _SAME_CELL)))
        rows = rows[np.argsort(moved[rows] + 3 * size[rows], kind="stable")]
        taken = np.zeros(count, dtype=np.int64)
        for row in rows.tolist():
            if min(taken[one[row]], taken[two[row]]) < _PARTNERS:
                chosen.add(row)
                taken[one[row]] += 1
                taken[two[row]] += 1
    rows = np.array(sorted(chosen), dtype=np.int64)
    return {
        "first": group[one[rows]],
        "second": group[two[rows]],
        "work": work[rows],
        "bend": bend[rows],
        "moved": moved[rows],
        "strain": strain[rows],
        "volume": volume[rows],
        "atoms": np.full(len(rows), atoms, dtype=np.int64),
    }


def _open(
    positions: Values, forces: Values, one: NDArray[np.int64], two: NDArray[np.int64]
) -> tuple[Values, Values, Values, Values, Values]:
    centered = positions - positions.mean(1, keepdims=True)
    a, b = centered[one], centered[two]
    left, _, right = np.linalg.svd(b.transpose(0, 2, 1) @ a)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]  # a proper rotation
    rotation = left @ right  # [P, 3, 3]: b @ rotation superposes b on a
    step = b @ rotation - a
    start, end = ((each * step).sum((1, 2)) for each in (forces[one], forces[two] @ rotation))
    return (
        (start + end) / 2,
        np.abs(start - end) / 2,
        np.sqrt((step**2).sum((1, 2)) / a.shape[1]),
        np.zeros((len(one), 3, 3)),
        np.ones(len(one)),
    )


def _periodic(
    positions: Values,
    forces: Values,
    cells: Values,
    pbc: NDArray[np.bool_],
    one: NDArray[np.int64],
    two: NDArray[np.int64],
) -> tuple[Values, Values, Values, Values, Values]:
    vectors = np.where(pbc[:, :, None], cells, np.eye(3))
    scaled = positions @ np.linalg.inv(vectors)
    step = scaled[two] - scaled[one]  # [P, n, 3] in cells
    step -= np.where(pbc[one][:, None], np.round(step), 0.0)
    step -= step.mean(1, keepdims=True)
    step -= np.where(pbc[one][:, None], np.round(step), 0.0)
    step -= step.mean(1, keepdims=True)
    middle = 0.5 * (vectors[one] + vectors[two])
    moved = step @ middle
    # The strain at the midpoint: the symmetric part of the gradient in second - first = middle @ gradient.
    gradient = np.linalg.solve(middle, vectors[two] - vectors[one])
    strain = 0.5 * (gradient + gradient.transpose(0, 2, 1))
    start, end = ((each * moved).sum((1, 2)) for each in (forces[one], forces[two]))
    return (
        (start + end) / 2,
        np.abs(start - end) / 2,
        np.sqrt((moved**2).sum((1, 2)) / moved.shape[1]),
        strain,
        np.abs(np.linalg.det(middle)),
    )
