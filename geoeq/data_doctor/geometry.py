"""Positions and elements: atoms that overlap or are alone, the unit of lengths, neighbours, sizes, rare elements."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoeq.checks import COINCIDENT, LAST_ELEMENT
from geoeq.data.ragged import Ranges
from geoeq.data_doctor.findings import Finding, finding
from geoeq.data_doctor.survey import Chart

__all__ = ["check_elements", "check_geometry", "check_neighbours"]

#: Shortest distances over the sum of covalent radii: less is no bond (H2 has 1.19, hot molecules 0.8).
_OVERLAP = 0.55

#: The median over the nearest neighbours of all atoms, where lengths are in Å: 0.9 to 1.3 but for noble gases.
_LONG, _SHORT = 1.65, 0.65

#: Neighbours of one atom beyond which a cutoff is likely too long.
_MANY = 250

#: Atomic numbers that are looked at at once.
_BLOCK = 2**22

#: An element is rare that so few structures have, of at least so many.
_RARE, _OF = 1, 20


def check_geometry(chart: Chart) -> Iterator[Finding]:
    """Distances: coincident and overlapping atoms, atoms without a neighbour, the unit of lengths."""
    columns, places = chart.columns, chart.places
    if chart.dataset.numbers is None:
        return
    same = np.flatnonzero(columns["nearest"] < COINCIDENT)
    if len(same):
        yield finding(
            "overlap",
            "error",
            f"In {len(same)} structures two atoms are at the same place (less than {COINCIDENT} Å apart).",
            "Remove one of them, or leave the structure out.",
            places[same],
        )
    typical = (
        float(np.median(columns["bonds"][np.isfinite(columns["bonds"])], axis=0))
        if np.isfinite(columns["bonds"]).any()
        else 1.0
    )
    if typical > _LONG or typical < _SHORT:
        cause = (
            "Bohr read as Å"
            if 1.7 < typical < 2.6
            else "Å taken for Bohr"
            if 0.45 < typical < _SHORT
            else "nm read as Å"
            if typical < 0.2
            else "another unit"
        )
        yield finding(
            "unit of length",
            "warning",
            f"Nearest neighbours are {typical:.2g} times as far apart as covalent radii say, as with {cause}.",
            "Compare the unit of positions in the card.",
        )
    close = np.flatnonzero((columns["contact"] < _OVERLAP) & (columns["nearest"] >= COINCIDENT))
    if len(close) and typical >= _SHORT:
        worst = close[np.argsort(columns["contact"][close])]
        yield finding(
            "overlap",
            "warning",
            f"In {len(close)} structures atoms overlap: down to "
            f"{columns['nearest'][worst[0]]:.3g} Å, {columns['contact'][worst[0]]:.2g} times the sum of the "
            "covalent radii.",
            "Look at them; leave out what is not meant.",
            places[worst],
        )
    alone = np.flatnonzero((columns["isolated"] > 0) & (columns["size"] > 1))
    if len(alone):
        yield finding(
            "isolated atoms",
            "warning",
            f"In {len(alone)} of {len(places)} structures an atom has no neighbour "
            f"within {chart.cutoff:g} Å, so that a network sees nothing of its surroundings.",
            "Take a longer cutoff, or look for atoms that have flown away or a wrong cell.",
            places[alone],
        )
    single = int((columns["size"] == 1).sum())
    if single:
        yield finding(
            "isolated atoms", "note", f"{single} structures are single atoms.", "", places[columns["size"] == 1]
        )


def check_neighbours(chart: Chart) -> Iterator[Finding]:
    """Sizes, and neighbours within the cutoff."""
    size, mean, most = (chart.columns[name] for name in ("size", "neighbours", "most_neighbours"))
    yield finding(
        "sizes",
        "note",
        f"Structures have {int(size.min())} to {int(size.max())} atoms, {size.mean():.1f} on "
        f"average; atoms have {np.average(mean, weights=size):.1f} neighbours within {chart.cutoff:g} Å, and "
        f"at the most {int(most.max())}.",
    )
    if most.max() > _MANY:
        yield finding(
            "neighbours",
            "warning",
            f"An atom has {int(most.max())} neighbours within {chart.cutoff:g} Å.",
            "A shorter cutoff is faster; look at the cell if this is unexpected.",
            chart.places[np.argsort(-most)[:1]],
        )


def check_elements(chart: Chart) -> Iterator[Finding]:
    """Atomic numbers that are none, elements that training does not see, elements that one structure alone has."""
    from ase.data import chemical_symbols

    numbers = chart.dataset.numbers
    if numbers is None or chart.counts is None:
        return
    ptr = chart.dataset.ptr
    present = chart.counts > 0  # [S, 119]
    unknown = _unknown(numbers)
    if len(unknown):
        bad = np.unique(np.searchsorted(ptr, unknown, side="right") - 1)
        odd = ", ".join(map(str, np.unique(numbers[unknown])[:5].tolist()))
        yield finding(
            "elements",
            "error",
            f"There are atomic numbers that are no element: {odd}.",
            f"Atomic numbers are 1 to {LAST_ELEMENT}.",
            bad,
        )
        present = present.copy()
        present[:, 0] = False
    times = present.sum(0)
    listed = ", ".join(f"{chemical_symbols[z]} in {times[z]}" for z in np.flatnonzero(times))
    yield finding("elements", "note", f"Of {len(present)} structures: {listed}.")
    train = chart.split.get("train")
    others = [part for part in ("valid", "test") if len(chart.split.get(part, ()))]
    unseen: set[int] = set()
    if train is not None and others:
        seen = _elements_of(chart, train)
        for part in others:
            lacking = sorted(_elements_of(chart, chart.split[part]) - seen)
            unseen |= set(lacking)
            if lacking:
                names = ", ".join(chemical_symbols[z] for z in lacking if 0 < z <= LAST_ELEMENT)
                rows = np.flatnonzero(
                    present[:, [z for z in lacking if 0 < z <= LAST_ELEMENT]].any(1)
                    & np.isin(chart.places, chart.split[part])
                )
                yield finding(
                    "elements",
                    "warning",
                    f"The {part} set has {names}, which no training structure has.",
                    "A network has learnt nothing about it; a wrong atomic number shows like this, too.",
                    chart.places[rows],
                )
    for z in np.flatnonzero((times > 0) & (times <= _RARE)).tolist():
        if len(present) >= _OF and z not in unseen:
            yield finding(
                "elements",
                "note",
                f"{chemical_symbols[z]} is in one of {len(present)} structures alone.",
                "Is it meant?",
                chart.places[present[:, z]],
            )


def _unknown(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """The atoms whose number is that of no element; some of them at a time are in memory."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(numbers), _BLOCK):
        block = np.asarray(numbers[start : start + _BLOCK])
        found.append(start + np.flatnonzero((block < 1) | (block > LAST_ELEMENT)))
    return np.concatenate(found)


def _elements_of(chart: Chart, places: NDArray[np.int64]) -> set[int]:
    """Atomic numbers of structures; of many, of 50 000 that are spread evenly."""
    numbers, ptr = np.asarray(chart.dataset.numbers), chart.dataset.ptr
    if len(places) > 50_000 and not chart.full:
        places = places[np.linspace(0, len(places) - 1, 50_000).astype(np.int64)]
    found: set[int] = set()
    for some in np.array_split(np.sort(places), -(-len(places) // 1000)):
        found.update(np.unique(Ranges.of(some, ptr).take(numbers)).tolist())
    return found
