"""Rows of many structures, one after the other in one array, picked for some of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Ranges"]

Array = NDArray[Any]


class Ranges(NamedTuple):
    """The rows of some structures.

    Attributes:
        bounds: first row and one past the last of each.
        pointers: [G + 1], row pointers for what is taken.
    """

    bounds: list[tuple[int, int]]
    pointers: NDArray[np.int64]

    @classmethod
    def of(cls, places: NDArray[np.int64], ptr: Array) -> Ranges:
        """The rows of the structures ``places`` [G], where ``ptr`` are the row pointers of all."""
        starts, ends = ptr[places], ptr[places + 1]
        pointers = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(ends - starts, out=pointers[1:])
        return cls(list(zip(starts.tolist(), ends.tolist())), pointers)

    def take(self, array: Array) -> Array:
        """A copy of these rows of ``array``. Pieces are copied whole, which is faster than an index for each row."""
        return np.concatenate([array[start:end] for start, end in self.bounds])
