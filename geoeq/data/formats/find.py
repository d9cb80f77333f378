"""Which format a file is in."""

from __future__ import annotations

from pathlib import Path

from geoeq.data.containers.text import bare_suffix
from geoeq.data.containers.unpack import unpacked
from geoeq.data.formats.ase_database import ASEDatabaseReader
from geoeq.data.formats.ase_files import ASEReader
from geoeq.data.formats.deepmd import DeepMDReader, find_systems
from geoeq.data.formats.extxyz import ExtxyzReader
from geoeq.data.formats.hdf5 import HDF5Reader
from geoeq.data.formats.keyed import KeyedReader
from geoeq.data.formats.npz import NpzReader
from geoeq.data.formats.pymatgen_json import PymatgenReader
from geoeq.errors import DataError

__all__ = ["find_reader"]

#: Suffix -> reader; everything else is left to ASE.
_READERS: dict[str, type[KeyedReader]] = {
    ".extxyz": ExtxyzReader,
    ".xyz": ExtxyzReader,
    ".npz": NpzReader,
    ".h5": HDF5Reader,
    ".hdf5": HDF5Reader,
    ".db": ASEDatabaseReader,
}


def find_reader(path: Path) -> type[KeyedReader]:
    """The reader for a file, by the end of its name, or for a folder of DeePMD-kit.

    Raises:
        DataError: it is another kind of folder.
    """
    if path.is_dir():
        if not find_systems(path):
            raise DataError(
                f"{path} is a folder without type.raw and set.*; a file, or a folder of DeePMD-kit, is right."
            )
        return DeepMDReader
    if bare_suffix(path) == ".json" and not _is_ase_json(path):
        return PymatgenReader
    return _READERS.get(bare_suffix(path), ASEReader)


def _is_ase_json(path: Path) -> bool:
    """Whether a JSON file is a database of ASE: a mapping, not a list."""
    with unpacked(path) as plain, plain.open("rb") as file:
        return file.read(64).lstrip()[:1] == b"{"
