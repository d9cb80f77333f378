"""Diagnose a data set: open it without validation and run every check, quick or full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geoeq.data import Dataset, card_path, is_name, load, load_file
from geoeq.data.formats.quantities import check_keys
from geoeq.data_doctor.consistency import check_consistency
from geoeq.data_doctor.duplicates import check_duplicates
from geoeq.data_doctor.energies import check_energies
from geoeq.data_doctor.findings import SEVERITIES, Diagnosis, Finding, error, note
from geoeq.data_doctor.forces import check_forces
from geoeq.data_doctor.geometry import check_elements, check_geometry, check_molecules, check_neighbours
from geoeq.data_doctor.label_checks import check_labels, check_values
from geoeq.data_doctor.statistics import Statistics, choose_structures, compute_statistics, unusable
from geoeq.errors import DataError, InputError
from geoeq.trust import Trust

__all__ = ["CHECKS", "diagnose", "open_patient"]

#: Checks in the order of the table.
CHECKS: tuple[Callable[[Statistics], Iterator[Finding]], ...] = (
    check_elements,
    check_geometry,
    check_molecules,
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
    """Examine a data set for problems that would spoil a training.

    The quick form measures up to 1500 structures (10 000 atoms), in short runs spread evenly over the data, and reads
    all labels and elements; the full form measures every structure, in bounded memory.

    Args:
        dataset: data set to examine.
        split: part -> indices; by default the split of the card, if it can be created.
        targets: required targets; None for all.
        cutoff: cutoff of the model in Å; None for 5 Å.
        full: whether to measure all structures.

    Raises:
        InputError: the cutoff is not positive.
    """
    if cutoff is not None and not 0 < cutoff < np.inf:
        raise InputError(f"The cutoff is {cutoff}; it must be a positive length in Å.")
    findings = [*check_labels(dataset, targets), *check_values(dataset, full)]
    if split is None:
        split, notes = _card_split(dataset)
        findings += notes
    indices = choose_structures(dataset, full)
    bad = unusable(dataset, indices)
    if bad.any():
        text = f"In {int(bad.sum())} structures a position or the cell is not finite, or the cell has no volume."
        findings.append(error("positions", text, "Remove them.", indices[bad]))
    requested = tuple(name for name in targets or dataset.targets if name in dataset.targets)
    good = indices[~bad]
    statistics = None
    if len(good):
        statistics = compute_statistics(dataset, good, split, requested, cutoff, full)
        for check in CHECKS:
            findings += check(statistics)
    findings.sort(key=lambda one: SEVERITIES.index(one.severity))
    return Diagnosis(dataset.card.name, tuple(findings), len(dataset), len(good), statistics)


def _card_split(dataset: Dataset) -> tuple[Mapping[str, NDArray[np.int64]], list[Finding]]:
    try:
        return dataset.split(), []
    except DataError as error:
        return {}, [note("split", f"The split of the card cannot be created: {error}")]


def open_patient(
    name_or_path: str | Path,
    *,
    sample: bool = False,
    keys: Mapping[str, str | None] | None = None,
    trust: Trust = False,
) -> Dataset | Diagnosis:
    """Open possibly faulty data without validation, to report all problems together.

    Args:
        name_or_path: data set or file, as for ``geoeq.data.load``.
        sample: whether to open only the sample shipped with geoeq.
        keys: for files: quantity -> key in the file, None to ignore the quantity.
        trust: modules outside geoeq that a card may name, as for ``geoeq.data.load``.

    Returns:
        The data set, or a diagnosis with a single error if it cannot be read.

    Raises:
        DataError: the data set or file does not exist, or the files of a data set are missing.
        InputError: keys are specified for a data set, or for an unknown quantity.
    """
    path, name_or_path = Path(name_or_path), str(name_or_path)
    is_dataset = card_path(name_or_path) is not None or is_name(name_or_path)
    if is_dataset and keys:
        raise InputError(f"--key applies to files; the keys of {name_or_path} are in its card.")
    if is_dataset:
        try:
            return load(name_or_path, sample=sample, trust=trust)
        except InputError as error:
            return _unreadable(name_or_path, error)
    if not path.exists():
        return load(path)  # raises an error that lists the known names
    try:
        check_keys(keys)
    except ValueError as error:
        raise InputError(f"--key: {error}") from error
    try:
        return load_file(path, keys=keys, check=False)
    except (DataError, InputError) as error:
        return _unreadable(path.name, error)


def _unreadable(name: str, reason: Exception) -> Diagnosis:
    remedy = "Fix this first; the remaining checks were skipped."
    return Diagnosis(name, (error("reading", " ".join(str(reason).split()), remedy),))
