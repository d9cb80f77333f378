"""Check positions and elements: overlapping or isolated atoms, the unit of length, neighbours, rare elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoeq.checks import COINCIDENT, LAST_ELEMENT
from geoeq.data.molecules.plausibility import geometry_fault
from geoeq.data.ragged import Ranges
from geoeq.data_doctor.findings import Finding, error, note, warning
from geoeq.data_doctor.statistics import Statistics

__all__ = ["check_elements", "check_geometry", "check_molecules", "check_neighbours"]

#: Shortest plausible distance over the sum of covalent radii (H2 has 1.19, hot molecules 0.8).
_OVERLAP = 0.55

#: Plausible median of that ratio over the nearest neighbours of all atoms: 0.9 to 1.3 except for noble gases.
_LONG, _SHORT = 1.65, 0.65

#: Thickness in Å (root mean square) below which a molecule may be a drawing.
_FLAT = 1e-3

#: Number of neighbours of one atom above which a cutoff is probably too long.
_MANY = 250

#: Number of atomic numbers read at once.
_BLOCK = 2**22

#: An element is rare if at most ``_RARE`` structures have it, in a sample of at least ``_RARE_AMONG``.
_RARE, _RARE_AMONG = 1, 20

#: Number of structures whose elements the quick form reads per part of a split.
_SAMPLED = 50_000


def check_geometry(statistics: Statistics) -> Iterator[Finding]:
    """Check distances: coincident and overlapping atoms, isolated atoms, and the unit of length."""
    columns, indices = statistics.columns, statistics.indices
    if statistics.dataset.numbers is None:
        return
    same = np.flatnonzero(columns["nearest"] < COINCIDENT)
    if len(same):
        yield error(
            "overlap",
            f"In {len(same)} structures two atoms coincide (less than {COINCIDENT} Å apart).",
            "Remove one of them, or the structure.",
            indices[same],
        )
    bonds = columns["bonds"][np.isfinite(columns["bonds"])]
    typical = float(np.median(bonds)) if len(bonds) else 1.0
    if typical > _LONG or typical < _SHORT:
        yield warning(
            "unit of length",
            f"Nearest neighbours are {typical:.2g} times as far apart as their covalent radii suggest, as with "
            f"{_length_cause(typical)}.",
            "Check the unit of positions in the card.",
        )
    close = np.flatnonzero((columns["contact"] < _OVERLAP) & (columns["nearest"] >= COINCIDENT))
    if len(close) and typical >= _SHORT:
        worst = close[np.argsort(columns["contact"][close])]
        yield warning(
            "overlap",
            f"In {len(close)} structures atoms overlap: they are as close as {columns['nearest'][worst[0]]:.3g} Å, "
            f"{columns['contact'][worst[0]]:.2g} times the sum of their covalent radii.",
            "Inspect them, and remove unintended ones.",
            indices[worst],
        )
    isolated = np.flatnonzero((columns["isolated"] > 0) & (columns["size"] > 1))
    if len(isolated):
        yield warning(
            "isolated atoms",
            f"In {len(isolated)} of {len(indices)} structures an atom has no neighbour within {statistics.cutoff:g} Å, "
            "so that a network cannot see its surroundings.",
            "Use a longer cutoff, or look for atoms that have flown away or a wrong cell.",
            indices[isolated],
        )
    single = columns["size"] == 1
    if single.any():
        text = f"{int(single.sum())} structures are single atoms."
        yield note("isolated atoms", text, "", indices[single])


def check_molecules(statistics: Statistics) -> Iterator[Finding]:
    """Report molecules that are drawings in two dimensions, or that lack their hydrogens."""
    dataset, columns, counts = statistics.dataset, statistics.columns, statistics.counts
    if counts is None or dataset.numbers is None:
        return
    bare = (counts[:, 1] == 0) & (counts[:, 6] > 1)
    suspects = np.flatnonzero((bare | (columns["thickness"] < _FLAT)) & (columns["periodic"] == 0))
    reasons: dict[str, list[int]] = {}
    for row in suspects:
        index = int(statistics.indices[row])
        atoms = slice(int(dataset.ptr[index]), int(dataset.ptr[index + 1]))
        fault = geometry_fault(np.asarray(dataset.numbers[atoms]), np.asarray(dataset.positions[atoms]))
        if fault is not None:
            reasons.setdefault(fault, []).append(index)
    for fault, found in reasons.items():
        text = f"{len(found)} of {len(statistics.indices)} structures are no geometries of molecules. Of each: {fault}."
        yield error("molecules", text, "Compute conformers with all hydrogens.", found)


def _length_cause(typical: float) -> str:
    if 1.7 < typical < 2.6:
        return "Bohr read as Å"
    if 0.45 < typical < _SHORT:
        return "Å read as Bohr"
    return "nm read as Å" if typical < 0.2 else "another unit"


def check_neighbours(statistics: Statistics) -> Iterator[Finding]:
    """Report sizes, and numbers of neighbours within the cutoff."""
    size, mean, most = (statistics.columns[name] for name in ("size", "neighbours", "most_neighbours"))
    yield note(
        "sizes",
        f"Structures have {int(size.min())} to {int(size.max())} atoms, {size.mean():.1f} on average; atoms have "
        f"{np.average(mean, weights=size):.1f} neighbours within {statistics.cutoff:g} Å on average, and at most "
        f"{int(most.max())}.",
    )
    if most.max() > _MANY:
        yield warning(
            "neighbours",
            f"An atom has {int(most.max())} neighbours within {statistics.cutoff:g} Å.",
            "A shorter cutoff is faster; check the cell if this is unexpected.",
            statistics.indices[np.argsort(-most)[:1]],
        )


def check_elements(statistics: Statistics) -> Iterator[Finding]:
    """Check for invalid atomic numbers, elements missing from the training set, and elements of a single structure."""
    from ase.data import chemical_symbols

    numbers = statistics.dataset.numbers
    if numbers is None or statistics.counts is None:
        return
    present = statistics.counts > 0  # [S, 119]
    invalid = _invalid_atoms(numbers)
    if len(invalid):
        values = ", ".join(map(str, np.unique(numbers[invalid])[:5].tolist()))
        yield error(
            "elements",
            f"These atomic numbers are not elements: {values}.",
            f"Atomic numbers are 1 to {LAST_ELEMENT}.",
            np.unique(np.searchsorted(statistics.dataset.ptr, invalid, side="right") - 1),
        )
        present = present.copy()
        present[:, 0] = False
    times = present.sum(0)
    listed = ", ".join(f"{chemical_symbols[z]} in {times[z]}" for z in np.flatnonzero(times))
    yield note("elements", f"Of {len(present)} structures: {listed}.")
    train = statistics.split.get("train")
    others = [part for part in ("valid", "test") if len(statistics.split.get(part, ()))]
    unseen: set[int] = set()
    if train is not None and others:
        seen = _elements_of(statistics, train)
        for part in others:
            lacking = sorted(_elements_of(statistics, statistics.split[part]) - seen)
            unseen |= set(lacking)
            if lacking:
                known = [z for z in lacking if 0 < z <= LAST_ELEMENT]
                rows = present[:, known].any(1) & np.isin(statistics.indices, statistics.split[part])
                yield warning(
                    "elements",
                    f"The {part} set has {', '.join(chemical_symbols[z] for z in known)}, which no training structure "
                    "has.",
                    "A network cannot have learnt it; a wrong atomic number is another possible cause.",
                    statistics.indices[rows],
                )
    for z in np.flatnonzero((times > 0) & (times <= _RARE)).tolist():
        if len(present) >= _RARE_AMONG and z not in unseen:
            text = f"{chemical_symbols[z]} is in only one of {len(present)} structures."
            yield note("elements", text, "Is this intended?", statistics.indices[present[:, z]])


def _invalid_atoms(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the atoms whose number is not an element, reading block by block."""
    invalid = [np.zeros(0, np.int64)]
    for start in range(0, len(numbers), _BLOCK):
        block = np.asarray(numbers[start : start + _BLOCK])
        invalid.append(start + np.flatnonzero((block < 1) | (block > LAST_ELEMENT)))
    return np.concatenate(invalid)


def _elements_of(statistics: Statistics, indices: NDArray[np.int64]) -> set[int]:
    """Return the atomic numbers of structures; of many structures, those of an evenly spread sample."""
    numbers, ptr = np.asarray(statistics.dataset.numbers), statistics.dataset.ptr
    if len(indices) > _SAMPLED and not statistics.full:
        indices = indices[np.linspace(0, len(indices) - 1, _SAMPLED).astype(np.int64)]
    elements: set[int] = set()
    for some in np.array_split(np.sort(indices), -(-len(indices) // 1000)):
        elements.update(np.unique(Ranges.of(some, ptr).take(numbers)).tolist())
    return elements
