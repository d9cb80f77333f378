"""``diagnose``: every check of a data set, quick or full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from geoeq.data import Dataset
from geoeq.data_doctor.consistency import check_consistency
from geoeq.data_doctor.duplicates import check_duplicates
from geoeq.data_doctor.energies import check_energies
from geoeq.data_doctor.findings import SEVERITIES, Finding, finding
from geoeq.data_doctor.findings_report import Diagnosis
from geoeq.data_doctor.forces import check_forces
from geoeq.data_doctor.geometry import check_elements, check_geometry, check_neighbours
from geoeq.data_doctor.label_checks import check_labels, check_values
from geoeq.data_doctor.survey import Chart, choose_places, make_chart, unusable
from geoeq.errors import DataError, InputError

__all__ = ["CHECKS", "diagnose"]

#: In the order of the table.
CHECKS: tuple[Callable[[Chart], Iterator[Finding]], ...] = (
    check_elements,
    check_geometry,
    check_neighbours,
    check_energies,
    check_forces,
    check_consistency,
    check_duplicates,
)


def diagnose(
    dataset: Dataset,
    *,
    split: Mapping[str, NDArray[np.int64]] | None = None,
    targets: Sequence[str] | None = None,
    cutoff: float | None = None,
    full: bool = False,
) -> Diagnosis:
    """Look through a data set for what would spoil a training.

    The quick form measures up to 1500 structures (10 000 atoms), in short runs that are spread evenly over the data,
    and looks at all labels and elements; the full form measures every structure, in bounded memory.

    Args:
        dataset: the structures.
        split: part -> places; by default that of the card, if it can be made.
        targets: those that are wanted; all if None.
        cutoff: of the model, Å; 5 if None.
        full: measure all structures.

    Raises:
        InputError: the cutoff is not positive.
    """
    if cutoff is not None and not 0 < cutoff < np.inf:
        raise InputError(f"The cutoff is {cutoff}; it must be a positive length in Å.")
    found = [*check_labels(dataset, targets), *check_values(dataset, full)]
    if split is None:
        split, notes = _split_of(dataset)
        found += notes
    places = choose_places(dataset, full)
    bad = unusable(dataset, places)
    if bad.any():
        text = f"In {int(bad.sum())} structures a position or the cell is not finite, or the cell has no volume."
        found.append(finding("positions", "error", text, "Leave them out.", places[bad]))
    wanted = tuple(name for name in targets or dataset.targets if name in dataset.targets)
    good = places[~bad]
    chart = None
    if len(good):
        chart = make_chart(dataset, good, split, wanted, cutoff, full)
        for check in CHECKS:
            found += check(chart)
    found.sort(key=lambda one: SEVERITIES.index(one.severity))
    return Diagnosis(dataset.card.name, tuple(found), len(dataset), len(good), chart)


def _split_of(dataset: Dataset) -> tuple[Mapping[str, NDArray[np.int64]], list[Finding]]:
    try:
        return dataset.split(), []
    except DataError as error:
        return {}, [finding("split", "note", f"The split of the card cannot be made: {error}")]
