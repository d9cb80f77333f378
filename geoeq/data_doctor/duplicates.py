"""The same structure twice, in whatever pose and order of atoms, and across the parts of a split."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoeq.data_doctor.findings import Finding, finding
from geoeq.data_doctor.survey import Chart, make_chart, sorted_atom_prints

__all__ = ["SAME", "check_duplicates", "same_structures"]

#: Entries of fingerprints of structures, and of atoms, differ by less where all atoms agree within 1e-4 Å.
SAME, _SAME_ATOMS = 3e-4, 6e-4

#: Structures that follow in the order of one entry and are compared; more are the same chain.
_WINDOW = 64

#: Pairs whose atoms are compared at once.
_BLOCK = 128

#: Structures of equal energy that the quick form looks at.
_SUSPECTS = 600

#: Of the test structures, copies of training structures that are too many: as a part, and at least.
_LEAK, _LEAKS = 0.1, 4

#: Energies of the same structure, eV for each atom, that differ more contradict each other.
_CONTRADICTION = 2e-3


def same_structures(
    prints: NDArray[np.float64], counts: NDArray[np.int32] | None, sizes: NDArray[np.float64], tolerance: float = SAME
) -> NDArray[np.int64]:
    """Pairs of structures with the same atoms and fingerprints that differ by no more than the tolerance.

    The structures are sorted by one entry, and each is compared with those that follow closely: no bins, so no edges of
    bins at which two that are the same could be parted.

    Shapes:
        prints: [S, WIDTH]. counts: [S, 119]. sizes: [S]. Returns [P, 2], rows of the structures.
    """
    if len(prints) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    composition = sizes if counts is None else counts @ np.cos(np.arange(counts.shape[1]) ** 2 + 0.5)
    _, kind = np.unique(np.round(composition, 6), return_inverse=True)
    order = np.lexsort((prints[:, 0], kind))
    kinds, sorted_prints = kind[order], prints[order]
    found = []
    for step in range(1, min(_WINDOW, len(order) - 1) + 1):
        near = (kinds[step:] == kinds[:-step]) & (sorted_prints[step:, 0] - sorted_prints[:-step, 0] <= tolerance)
        rows = np.flatnonzero(near)
        if len(rows) == 0:
            break
        close = np.abs(sorted_prints[rows] - sorted_prints[rows + step]).max(1) <= tolerance
        rows = rows[close]
        if counts is not None:
            rows = rows[(counts[order[rows]] == counts[order[rows + step]]).all(1)]
        found.append(np.stack([order[rows], order[rows + step]], axis=1))
    return np.sort(np.concatenate(found), axis=1) if found else np.zeros((0, 2), dtype=np.int64)


def check_duplicates(chart: Chart) -> Iterator[Finding]:
    """Look for copies, within the data and across the parts of the split.

    The full form compares all structures. The quick one compares those of the sample, and all whose energy is that of
    another structure to the last digit.
    """
    if chart.dataset.numbers is None:
        return
    yield from _shared_places(chart)
    seen = chart if chart.full else _with_suspects(chart)
    pairs = same_structures(seen.prints, seen.counts, seen.columns["size"])
    pairs = seen.places[pairs[seen.columns["size"][pairs[:, 0]] > 1]]
    pairs = _confirmed(chart, pairs)
    if len(pairs) == 0:
        yield finding(
            "duplicates",
            "note",
            f"No structure is there twice, of {len(seen.places)}"
            f"{'' if chart.full else ' that were compared (--full compares all)'}.",
        )
        return
    part = np.zeros(len(chart.dataset), dtype=np.int8)
    names = ("no part", "train", "valid", "test")
    for number, name in enumerate(names[1:], 1):
        part[chart.split.get(name, np.zeros(0, dtype=np.int64))] = number
    leaks = pairs[(part[pairs[:, 0]] == 1) ^ (part[pairs[:, 1]] == 1)]
    leaks = leaks[(part[leaks] > 1).any(1)] if len(leaks) else leaks
    for number in (2, 3):
        copies = np.unique(leaks[part[leaks] == number])
        if len(copies):
            name, whole = names[number], int((part == number).sum())
            source = next(pair for pair in leaks.tolist() if copies[0] in pair)
            other = source[0] if source[1] == copies[0] else source[1]
            much = name == "test" and len(copies) > max(_LEAKS, _LEAK * whole)
            yield finding(
                "leakage",
                "error" if much else "warning",
                f"{len(copies)} of {whole} {name} structures are also in "
                f"the training set, turned, moved or in another order: {copies[0]} is the training structure "
                f"{other}.",
                "Errors measured with them are too small: keep all copies in one part.",
                copies,
            )
    copies = np.unique(pairs[:, 1])
    shown = ", ".join(f"{a} and {b}" for a, b in pairs[:3].tolist())
    yield finding(
        "duplicates",
        "warning",
        f"{len(copies)} structures are copies of others, such as {shown}.",
        "They count twice; leave them out.",
        copies,
    )
    yield from _contradictions(chart, pairs)


def _confirmed(chart: Chart, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pairs whose atoms agree one by one: in large structures a few that moved hardly change the mean."""
    kept = [np.zeros((0, 2), dtype=np.int64)]
    for block in np.array_split(pairs, max(1, -(-len(pairs) // _BLOCK))):
        if len(block):
            one, two = (sorted_atom_prints(chart.dataset, block[:, side], chart.cutoff) for side in (0, 1))
            same = [len(a) == len(b) and np.abs(a - b).max() <= _SAME_ATOMS for a, b in zip(one, two)]
            kept.append(block[np.array(same)])
    return np.concatenate(kept)


def _shared_places(chart: Chart) -> Iterator[Finding]:
    train = chart.split.get("train", np.zeros(0, dtype=np.int64))
    for name in ("valid", "test"):
        both = np.intersect1d(train, chart.split.get(name, np.zeros(0, dtype=np.int64)))
        if len(both):
            yield finding(
                "leakage",
                "error",
                f"{len(both)} places are in the training set and in the {name} set of the split.",
                "Make the split anew: its parts have no structure in common.",
                both,
            )


def _with_suspects(chart: Chart) -> Chart:
    """The chart with structures of equal energy measured too."""
    name = next(
        (
            name
            for name in chart.energies or chart.targets
            if chart.dataset.targets[name].ndim == 1 and len(chart.dataset.targets[name]) == len(chart.dataset)
        ),
        None,
    )
    if name is None or len(chart.places) == len(chart.dataset):
        return chart
    values = np.asarray(chart.dataset.targets[name])
    order = np.argsort(values, kind="stable")
    equal = np.diff(values[order]) == 0
    pairs = np.flatnonzero(equal)
    pairs = (
        pairs[np.linspace(0, len(pairs) - 1, min(len(pairs), _SUSPECTS // 2)).astype(np.int64)] if len(pairs) else pairs
    )
    places = np.unique(np.concatenate([chart.places, order[pairs], order[pairs + 1]]))
    new = np.setdiff1d(places, chart.places)
    new = new[np.isfinite(values[new])]
    if len(new) == 0:
        return chart
    more = make_chart(chart.dataset, new, chart.split, (), chart.cutoff)
    columns = {"size": np.concatenate([chart.columns["size"], more.columns["size"]])}
    counts = None if chart.counts is None or more.counts is None else np.concatenate([chart.counts, more.counts])
    return Chart(
        chart.dataset,
        np.concatenate([chart.places, new]),
        chart.split,
        chart.targets,
        chart.cutoff,
        False,
        columns,
        np.concatenate([chart.prints, more.prints]),
        counts,
    )


def _contradictions(chart: Chart, pairs: NDArray[np.int64]) -> Iterator[Finding]:
    atoms = np.diff(chart.dataset.ptr)[pairs[:, 0]]
    for name in chart.energies[:1]:
        values = np.asarray(chart.dataset.targets[name], dtype=np.float64).reshape(len(chart.dataset))
        difference = np.abs(values[pairs[:, 0]] - values[pairs[:, 1]]) / atoms
        rows = np.flatnonzero(difference > _CONTRADICTION)
        if len(rows):
            worst = pairs[rows[np.argmax(difference[rows])]]
            yield finding(
                "duplicates",
                "warning",
                f"The '{name}' of {len(rows)} pairs of equal structures differs by up to "
                f"{difference.max():.3g} eV for each atom ({worst[0]} and {worst[1]}).",
                "One of two labels of the same structure is wrong.",
                np.unique(pairs[rows]),
            )
