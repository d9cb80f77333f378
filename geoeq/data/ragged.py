"""Rows of many structures, one after the other in one array, picked for some of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "rows_of"]

Array = NDArray[Any]


def rows_of(places: NDArray[np.int64], ptr: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that belong to the structures ``places``, and row pointers for what is gathered with them.

    Shapes:
        places: [G]. ptr: [all structures + 1]. Returns rows [N] and pointers [G + 1].
    """
    start = ptr[places]
    counts = ptr[places + 1] - start  # [G]
    pointers = np.zeros(len(places) + 1, dtype=np.int64)
    np.cumsum(counts, out=pointers[1:])
    rows = np.repeat(start - pointers[:-1], counts)  # [N]
    rows += np.arange(len(rows))
    return rows, pointers
