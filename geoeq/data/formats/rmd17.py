"""The archive of rMD17: one npz file per molecule, and five published splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from geoeq.data.containers.unpack import is_archive, unpacked_folder
from geoeq.data.formats.npz import NpzReader
from geoeq.data.formats.quantities import Survey
from geoeq.documents import read_text
from geoeq.errors import DataError

__all__ = ["RMD17Reader"]

_LISTS = [f"{part}_{number:02d}" for number in range(1, 6) for part in ("train", "test")]


class RMD17Reader(NpzReader):
    """Reader of one molecule of ``rmd17.tar.bz2``, or of its npz file, which has no published splits.

    The lists are ``train_01`` to ``train_05`` and ``test_01`` to ``test_05``, with 1000 indices each.

    Args:
        molecule: name of the molecule in the file name, such as ``salicylic``.
    """

    version: ClassVar[int] = 1

    def __init__(self, molecule: str) -> None:
        super().__init__(
            keys={"energy": "energies", "forces": "forces"}, length="Å", member=f"rmd17/npz_data/rmd17_{molecule}.npz"
        )

    def look(self, files: Mapping[str, Path]) -> Survey:
        """Collect names and shapes of the arrays, and the published lists."""
        (path,) = files.values()
        lists = _lists(path) if is_archive(path) else {}
        return replace(super().look(files), lists=lists)


def _lists(path: Path) -> dict[str, list[int]]:
    lists = {}
    with unpacked_folder(path, "rmd17/splits/") as folder:
        for name in _LISTS:
            file = folder / "rmd17" / "splits" / f"index_{name}.csv"
            where = f"{path}: rmd17/splits/{file.name}"
            try:
                lists[name] = [int(word) for word in read_text(file, where=where).replace(",", " ").split()]
            except ValueError as error:
                raise DataError(f"{where}: it is missing, truncated or altered ({error}).") from error
            if len({*lists[name]}) != 1000:
                raise DataError(f"{where}: it has {len({*lists[name]})} different indices instead of 1000.")
    return lists
