"""Files of the user: detect the format, read the structures into memory, and describe them by a card."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from geoeq.data.arrays import checked_arrays, to_arrays
from geoeq.data.card import Card, Split, Target, names
from geoeq.data.containers.unpack import bare_suffix, unpacked
from geoeq.data.dataset import Dataset
from geoeq.data.formats.ase_database import ASEDatabaseReader
from geoeq.data.formats.ase_files import ASEReader
from geoeq.data.formats.deepmd import DeepMDReader, find_systems
from geoeq.data.formats.extxyz import ExtxyzReader
from geoeq.data.formats.hdf5 import HDF5Reader
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.npz import NpzReader
from geoeq.data.formats.pymatgen_json import PymatgenReader
from geoeq.data.formats.quantities import Survey, column_of
from geoeq.data.preparation.chunks import join
from geoeq.data.splits import scale_sizes
from geoeq.errors import DataError, InputError, unknown_name
from geoeq.fields import FIELDS
from geoeq.files import check_regular

__all__ = ["find_reader", "load_file"]

#: Suffix -> reader; ASE reads all other files.
_READERS: dict[str, type[KeyedReader]] = {
    ".extxyz": ExtxyzReader,
    ".xyz": ExtxyzReader,
    ".npz": NpzReader,
    ".h5": HDF5Reader,
    ".hdf5": HDF5Reader,
    ".db": ASEDatabaseReader,
}

#: Head of a database of ASE in JSON, which does not begin with a structure of pymatgen.
_ASE_JSON = re.compile(rb"(?:\xef\xbb\xbf)?\s*\{\s*\"(?:\d+\"\s*:\s*\{(?!\s*\"structure\")|ids\"|nextid\")")

#: Ratio of the sizes of training, validation and test.
_RATIO = {"train": 8, "valid": 1, "test": 1}


def load_file(path: str | Path, *, keys: Mapping[str, str | None] | None = None, check: bool = True) -> Dataset:
    """Load the structures of a file or folder with the energies, forces and other quantities that it contains.

    Args:
        path: path of a file in any format that ``load`` accepts.
        keys: quantity -> key in the file, or None to skip the quantity; other quantities are detected.
        check: whether to refuse invalid structures.

    Raises:
        DataError: the file does not exist, cannot be read, or lacks a key.
        InputError: a structure is invalid, or a quantity is unknown.
    """
    path = Path(path)
    check_regular(path)
    if not path.exists():
        raise DataError(f"There is no file {path}. {unknown_name('data set', str(path), names())}")
    try:
        reader = find_reader(path)(keys=keys)
    except ValueError as error:
        raise InputError(str(error)) from error
    files = {path.name: path}
    survey = reader.survey(files)
    records = join(reader.read(files), str(path))
    card = _file_card(path, reader, survey, len(records.ptr) - 1)
    return Dataset(card, (checked_arrays if check else to_arrays)(card, records), notes=survey.notes)


def find_reader(path: Path) -> type[KeyedReader]:
    """Return the reader of a file, chosen by its suffix, or of a folder of DeePMD-kit.

    Raises:
        DataError: it is another kind of folder.
    """
    if path.is_dir():
        if not find_systems(path):
            raise DataError(f"{path} is a folder without type.raw and set.*; give a file, or a folder of DeePMD-kit.")
        return DeepMDReader
    if bare_suffix(path) == ".json" and not _is_ase_json(path):
        return PymatgenReader
    return _READERS.get(bare_suffix(path), ASEReader)


def _is_ase_json(path: Path) -> bool:
    """Return whether a JSON file is a database of ASE: a mapping whose first key is the number of a row."""
    with unpacked(path) as plain, plain.open("rb") as file:
        return _ASE_JSON.match(file.read(256)) is not None


def _file_card(path: Path, reader: KeyedReader, survey: Survey, count: int) -> Card:
    """Return a card whose targets are the columns of a file, with a random split of its structures, 8 : 1 : 1."""
    for name in survey.keys:
        if column_of(name) not in survey.units and name != "total_charge":
            raise DataError(
                f"{path}: the file does not state the unit of '{survey.keys[name]}'. Specify it in a card: 'targets: "
                f"{{{name}: {{column: {column_of(name)}, unit: .., report: {FIELDS[column_of(name)].unit}}}}}'."
            )
    targets = {
        name: Target(column=name, unit=unit, report=FIELDS[name].unit)
        for name, unit in survey.units.items()
        if name != "total_charge"  # an input
    }
    kind = type(reader)
    return Card(
        name=path.name,
        title=f"structures of the file {path}",
        reader=f"{kind.__module__}.{kind.__qualname__}",
        licence="that of the file",
        citation="none",
        targets=targets,
        splits={"random": Split("permutation", scale_sizes(_RATIO, count), seed=0)},
        default_split="random",
        default_target=next(iter(targets), ""),
    )
