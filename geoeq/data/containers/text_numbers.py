"""Numbers in text, as programs in C, Python and Fortran write them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geoeq.data.ragged import Array

__all__ = ["to_float", "to_floats"]

_EXPONENT = str.maketrans("Dd", "EE")


def to_float(word: str) -> float:
    """Return a number whose exponent may be that of Fortran's double precision, ``1.0D-1``.

    Raises:
        ValueError: the word is not a number.
    """
    try:
        return float(word)
    except ValueError:
        return float(word.translate(_EXPONENT))


def to_floats(words: Sequence[str] | Sequence[Sequence[str]]) -> Array:
    """Return the array of ``to_float`` of each word.

    Raises:
        ValueError: a word is not a number, or rows have different lengths.
    """
    array = np.array(words, dtype=np.str_)
    try:
        return array.astype(np.float64)
    except ValueError:
        return np.array([to_float(str(word)) for word in array.reshape(-1)]).reshape(array.shape)
