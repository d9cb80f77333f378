"""QM7 as shipped with geoeq: a compressed npz file of integers that keep every digit of the source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from geoeq.data.formats.npz_arrays import NpzArrays
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
    with NpzArrays(path) as file:
        for name in _ARRAYS:
            if name not in file.shapes:
                raise DataError(f"{path}: it must contain the arrays {', '.join(_ARRAYS)}, but '{name}' is missing.")
        arrays = {name: file.whole(name) for name in _ARRAYS}
    atoms, graphs = len(arrays["z"]), len(arrays["n_atoms"])
    shapes = ((graphs,), (atoms,), (atoms, 3), (graphs,), (graphs,))
    for name, shape in zip(_ARRAYS, shapes):
        if arrays[name].shape != shape or arrays[name].dtype.kind not in "iu":
            raise DataError(f"{path}: '{name}' must have whole numbers in the shape {shape}. Reinstall geoeq with pip.")
    return arrays
