"""Duplicate structures, in any pose and order of atoms, and leaks between the parts of a split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from geoeq.data_doctor.findings import Finding, error, finding, note, warning
from geoeq.data_doctor.fingerprints import sorted_atom_prints
from geoeq.data_doctor.statistics import Statistics, compute_statistics

__all__ = ["SAME", "check_duplicates", "same_structures"]

#: Largest difference of fingerprint entries of structures, and of atoms, if all atoms agree within 1e-4 Å.
SAME, _SAME_ATOMS = 3e-4, 6e-4

#: Number of following structures, sorted by one entry, with which each is compared.
_WINDOW = 64

#: Number of pairs whose atoms are compared at once.
_BLOCK = 128

#: Number of structures of equal energy that the quick form examines.
_SUSPECTS = 600

#: Test structures that are copies of training structures: fraction, and number, above which they are an error.
_LEAK, _LEAKS = 0.1, 4

#: Energies per atom of the same structure contradict each other if they differ by more, in eV.
_CONTRADICTION = 2e-3

_NO_INDICES = np.zeros(0, dtype=np.int64)


def same_structures(
    prints: NDArray[np.float64], counts: NDArray[np.int32] | None, sizes: NDArray[np.float64], tolerance: float = SAME
) -> NDArray[np.int64]:
    """Return pairs of structures with the same atoms whose fingerprints differ by at most the tolerance.

    The structures are sorted by one entry, and each is compared with those that follow closely. There are no bins, and
    so no bin edges at which two equal structures could be separated.

    Shapes:
        prints: [S, WIDTH]. counts: [S, 119]. sizes: [S]. Returns [P, 2], rows of the structures.
    """
    if len(prints) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    composition = sizes if counts is None else counts @ np.cos(np.arange(counts.shape[1]) ** 2 + 0.5)
    _, kind = np.unique(np.round(composition, 6), return_inverse=True)
    order = np.lexsort((prints[:, 0], kind))
    kinds, sorted_prints = kind[order], prints[order]
    pairs = []
    for step in range(1, min(_WINDOW, len(order) - 1) + 1):
        near = (kinds[step:] == kinds[:-step]) & (sorted_prints[step:, 0] - sorted_prints[:-step, 0] <= tolerance)
        rows = np.flatnonzero(near)
        if len(rows) == 0:
            break
        close = np.abs(sorted_prints[rows] - sorted_prints[rows + step]).max(1) <= tolerance
        rows = rows[close]
        if counts is not None:
            rows = rows[(counts[order[rows]] == counts[order[rows + step]]).all(1)]
        pairs.append(np.stack([order[rows], order[rows + step]], axis=1))
    return np.sort(np.concatenate(pairs), axis=1) if pairs else np.zeros((0, 2), dtype=np.int64)


def check_duplicates(statistics: Statistics) -> Iterator[Finding]:
    """Search for duplicates, within the data and across the parts of the split.

    The full form compares all structures. The quick form compares the measured ones, and those whose energy equals that
    of another structure to the last digit.
    """
    if statistics.dataset.numbers is None:
        return
    yield from _shared_indices(statistics)
    compared = statistics if statistics.full else _with_suspects(statistics)
    pairs = same_structures(compared.prints, compared.counts, compared.columns["size"])
    pairs = compared.indices[pairs[compared.columns["size"][pairs[:, 0]] > 1]]
    pairs = _confirmed(statistics, pairs)
    if len(pairs) == 0:
        remark = "" if statistics.full else " (--full compares all)"
        text = f"There are no duplicates among the {len(compared.indices)} compared structures{remark}."
        yield note("duplicates", text)
        return
    yield from _leaks(statistics, pairs)
    copies = np.unique(pairs[:, 1])
    examples = ", ".join(f"{a} and {b}" for a, b in pairs[:3].tolist())
    yield warning(
        "duplicates",
        f"{len(copies)} structures are copies of others, such as {examples}.",
        "They count twice; remove them.",
        copies,
    )
    yield from _contradictions(statistics, pairs)


def _leaks(statistics: Statistics, pairs: NDArray[np.int64]) -> Iterator[Finding]:
    """Report validation and test structures that are copies of training structures."""
    part = np.zeros(len(statistics.dataset), dtype=np.int8)
    names = ("no part", "train", "valid", "test")
    for number, name in enumerate(names[1:], 1):
        part[statistics.split.get(name, _NO_INDICES)] = number
    leaks = pairs[(part[pairs[:, 0]] == 1) ^ (part[pairs[:, 1]] == 1)]
    leaks = leaks[(part[leaks] > 1).any(1)] if len(leaks) else leaks
    for number in (2, 3):
        copies = np.unique(leaks[part[leaks] == number])
        if len(copies):
            name, total = names[number], int((part == number).sum())
            source = next(pair for pair in leaks.tolist() if copies[0] in pair)
            original = source[0] if source[1] == copies[0] else source[1]
            severe = name == "test" and len(copies) > max(_LEAKS, _LEAK * total)
            yield finding(
                "leakage",
                "error" if severe else "warning",
                f"{len(copies)} of {total} {name} structures are also in the training set, rotated, translated or with "
                f"permuted atoms: {copies[0]} equals the training structure {original}.",
                "Errors measured on them are too small: keep all copies in one part.",
                copies,
            )


def _confirmed(statistics: Statistics, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Keep the pairs whose atoms agree one by one: in large structures a few moved atoms hardly change the mean."""
    kept = [np.zeros((0, 2), dtype=np.int64)]
    for block in np.array_split(pairs, max(1, -(-len(pairs) // _BLOCK))):
        if len(block):
            one, two = (sorted_atom_prints(statistics.dataset, block[:, side], statistics.cutoff) for side in (0, 1))
            same = [len(a) == len(b) and np.abs(a - b).max() <= _SAME_ATOMS for a, b in zip(one, two)]
            kept.append(block[np.array(same)])
    return np.concatenate(kept)


def _shared_indices(statistics: Statistics) -> Iterator[Finding]:
    train = statistics.split.get("train", _NO_INDICES)
    for name in ("valid", "test"):
        both = np.intersect1d(train, statistics.split.get(name, _NO_INDICES))
        if len(both):
            yield error(
                "leakage",
                f"{len(both)} indices are in both the training set and the {name} set of the split.",
                "Create a new split: its parts must be disjoint.",
                both,
            )


def _with_suspects(statistics: Statistics) -> Statistics:
    """Return the statistics extended by structures of equal energy."""
    dataset = statistics.dataset
    per_structure = (
        name
        for name in statistics.energies or statistics.targets
        if dataset.targets[name].ndim == 1 and len(dataset.targets[name]) == len(dataset)
    )
    name = next(per_structure, None)
    if name is None or len(statistics.indices) == len(dataset):
        return statistics
    values = np.asarray(dataset.targets[name])
    order = np.argsort(values, kind="stable")
    pairs = np.flatnonzero(np.diff(values[order]) == 0)
    if len(pairs):
        pairs = pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), _SUSPECTS // 2)).astype(np.int64)]
    suspects = np.unique(np.concatenate([statistics.indices, order[pairs], order[pairs + 1]]))
    new = np.setdiff1d(suspects, statistics.indices)
    new = new[np.isfinite(values[new])]
    if len(new) == 0:
        return statistics
    more = compute_statistics(dataset, new, statistics.split, (), statistics.cutoff)
    known = statistics.counts is not None and more.counts is not None
    return replace(
        statistics,
        indices=np.concatenate([statistics.indices, new]),
        full=False,
        columns={"size": np.concatenate([statistics.columns["size"], more.columns["size"]])},
        prints=np.concatenate([statistics.prints, more.prints]),
        counts=np.concatenate([statistics.counts, more.counts]) if known else None,
    )


def _contradictions(statistics: Statistics, pairs: NDArray[np.int64]) -> Iterator[Finding]:
    atoms = np.diff(statistics.dataset.ptr)[pairs[:, 0]]
    for name in statistics.energies[:1]:
        values = np.asarray(statistics.dataset.targets[name], dtype=np.float64).reshape(len(statistics.dataset))
        difference = np.abs(values[pairs[:, 0]] - values[pairs[:, 1]]) / atoms
        rows = np.flatnonzero(difference > _CONTRADICTION)
        if len(rows):
            worst = pairs[rows[np.argmax(difference[rows])]]
            yield warning(
                "duplicates",
                f"The '{name}' of {len(rows)} pairs of equal structures differs by up to {difference.max():.3g} "
                f"eV/atom ({worst[0]} and {worst[1]}).",
                "One of two labels of the same structure is wrong.",
                np.unique(pairs[rows]),
            )
