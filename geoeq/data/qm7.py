"""QM7 as shipped with geoeq: a compressed npz file of integers that keep every digit of the source."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from geoeq.data.ragged import Array
from geoeq.data.records import Records
from geoeq.errors import DataError

__all__ = ["QM7Reader"]

_ARRAYS = ("n_atoms", "z", "pos_micro_angstrom", "pbe0_milli_kcal", "dftb_nano_kcal")


class QM7Reader:
    """Reader of the molecules of QM7 as shipped with geoeq.

    The file has the arrays ``n_atoms`` [G], ``z`` [N], ``pos_micro_angstrom`` [N, 3], ``pbe0_milli_kcal`` [G] and
    ``dftb_nano_kcal`` [G]. The columns are ``pbe0`` and ``dftb``, atomization energies in kcal/mol, negative if bound.
    """

    version: ClassVar[int] = 1

    def read(self, files: Mapping[str, Path]) -> Records:
        """Read the molecules of the one file in ``files``.

        Raises:
            DataError: the file is truncated, altered or lacks an array.
        """
        (path,) = files.values()
        arrays = _load(path)
        counts = arrays["n_atoms"].astype(np.int64)
        return Records(
            positions=arrays["pos_micro_angstrom"] / 1e6,
            ptr=np.concatenate([[0], np.cumsum(counts)]),
            numbers=arrays["z"],
            columns={"pbe0": arrays["pbe0_milli_kcal"] / 1e3, "dftb": arrays["dftb_nano_kcal"] / 1e9},
        )


def _load(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in _ARRAYS}
    except KeyError as error:
        raise DataError(f"{path}: it must contain the arrays {', '.join(_ARRAYS)}: {error}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: it is truncated or altered ({error}). Reinstall geoeq with pip.") from error
