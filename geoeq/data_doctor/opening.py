"""Data that may be ill: opened without the checks that refuse them, so that all that is wrong can be told at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from geoeq.data import Dataset, card_path, is_name, load, load_file
from geoeq.data.formats.quantities import check_keys
from geoeq.data_doctor.findings import finding
from geoeq.data_doctor.findings_report import Diagnosis
from geoeq.errors import DataError, InputError

__all__ = ["open_patient"]


def open_patient(
    name_or_path: str, *, sample: bool = False, keys: Mapping[str, str | None] | None = None
) -> Dataset | Diagnosis:
    """The data set or the structures of a file; a diagnosis of one error where they cannot be read.

    Args:
        name_or_path: as for ``geoeq.data.load``.
        sample: only the records that come with geoeq.
        keys: of a file: quantity -> key in it, None for what is not to be read.

    Raises:
        DataError: there is no such data set or file, or the files of a data set are not here.
        InputError: keys are told for what is not a file, or for what is no quantity.
    """
    path = Path(name_or_path)
    named = card_path(name_or_path) is not None or is_name(name_or_path)
    if named and keys:
        raise InputError(f"--key is for files; the keys of {name_or_path} are in its card.")
    if named:
        try:
            return load(name_or_path, sample=sample)
        except InputError as error:
            return _unreadable(name_or_path, error)
    if not path.exists():
        return load(path)  # which says what there is
    try:
        check_keys(keys)
    except ValueError as error:
        raise InputError(f"--key: {error}") from error
    try:
        return load_file(path, keys=keys, check=False)
    except (DataError, InputError) as error:
        return _unreadable(path.name, error)


def _unreadable(name: str, error: Exception) -> Diagnosis:
    remedy = "Nothing else can be said before this is mended."
    return Diagnosis(name, (finding("reading", "error", " ".join(str(error).split()), remedy),))
