"""The structures of a file of the user, in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from geoeq.data.arrays import checked_arrays, to_arrays
from geoeq.data.card import names
from geoeq.data.dataset import Dataset
from geoeq.data.file_cards import file_card
from geoeq.data.formats.find import find_reader
from geoeq.data.prepare.chunks import join
from geoeq.errors import DataError, InputError, unknown_name

__all__ = ["load_file"]


def load_file(path: Path, *, keys: Mapping[str, str | None] | None = None, check: bool = True) -> Dataset:
    """The structures of a file or folder, with what it has of energies, forces and the like.

    Args:
        path: in a format that ``load`` knows.
        keys: quantity -> key in the file, None for what is not to be read; the others are looked for.
        check: refuse structures that cannot be what was meant.

    Raises:
        DataError: there is no such file, or it cannot be read, or a key is missing.
        InputError: a structure cannot be what was meant, or a quantity is unknown.
    """
    if not path.exists():
        raise DataError(f"There is no file {path}. {unknown_name('data set', str(path), names())}")
    try:
        reader = find_reader(path)(keys=keys)
    except ValueError as error:
        raise InputError(str(error)) from error
    files = {path.name: path}
    survey = reader.survey(files)
    records = join(reader.read(files), str(path))
    card = file_card(path, reader, survey, len(records.ptr) - 1)
    return Dataset(card, (checked_arrays if check else to_arrays)(card, records), notes=survey.notes)
