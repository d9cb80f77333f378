"""Robust statistics: spread, outliers, linear models and lines through the origin despite a few wrong values."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Line", "line_through_origin", "outliers", "robust_fit", "spread"]

Values = NDArray[np.float64]

#: Standard deviation of a normal distribution over its median absolute deviation.
_NORMAL = 1.4826

#: Largest fraction of outliers; more values would be a second kind of structure.
_LARGEST_FRACTION = 0.03


def spread(values: Values) -> float:
    """Estimate the standard deviation from the median absolute deviation."""
    return _NORMAL * float(np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def outliers(sizes: Values, times: float, gap: float) -> NDArray[np.int64]:
    """Return the indices of outliers among sizes, the largest first.

    A size above ``times`` the median and above ``gap`` times the next smaller one is an outlier, and so are all larger
    ones. A heavy tail, such as that of forces in hot or strained structures, has no such gap.

    Shapes:
        sizes: [n], not negative.
    """
    none = np.zeros(0, dtype=np.int64)
    if len(sizes) < 10:
        return none
    order = np.argsort(sizes)
    ordered = sizes[order]
    first = len(sizes) - max(1, int(_LARGEST_FRACTION * len(sizes)))
    tail, below = ordered[first:], ordered[first - 1 : -1]
    jumps = np.flatnonzero((tail > times * max(float(np.median(sizes)), 1e-12)) & (tail > gap * below))
    return order[first + jumps[0] :][::-1] if len(jumps) else none


def robust_fit(matrix: Values, values: Values, rounds: int = 12) -> Values:
    """Fit a linear model by iteratively reweighted least squares, in which large residuals count little.

    Shapes:
        matrix: [n, d]. values: [n]. Returns [d].
    """
    weights: Values = np.ones(len(values))
    solution: Values = np.zeros(matrix.shape[1])
    for _ in range(rounds):
        root = np.sqrt(weights)
        solution = np.asarray(np.linalg.lstsq(matrix * root[:, None], values * root, rcond=None)[0])
        size = np.abs(values - matrix @ solution)
        limit = 2 * _NORMAL * float(np.median(size)) + 1e-12
        weights = np.where(size <= limit, 1.0, (limit / np.maximum(size, limit)) ** 2)
    return solution


class Line(NamedTuple):
    """Line y = slope · x.

    Attributes:
        slope: geometric mean of the slopes of y on x and of x on y, with their sign.
        factor: uncertainty: the true slope is between slope / factor and slope · factor; infinite without a line.
        points: number of points used.
    """

    slope: float
    factor: float
    points: int


def line_through_origin(x: Values, y: Values) -> Line:
    """Fit a line through the origin, ignoring points far from it.

    Errors of x make the slope of y on x too small, and errors of y make the inverse slope of x on y too large, so that
    the two enclose the true one.

    Shapes:
        x, y: [n].
    """
    keep = np.flatnonzero(np.isfinite(x) & np.isfinite(y) & (x != 0))
    x, y = x[keep], y[keep]
    if len(x) < 2:
        return Line(math.nan, math.inf, len(x))
    ratios = y / x
    order = np.argsort(ratios)
    weight = np.cumsum(np.abs(x)[order])
    middle = float(ratios[order][np.searchsorted(weight, weight[-1] / 2)])  # the line of least absolute errors
    rest = np.abs(y - middle * x)
    inside = rest <= 5 * _NORMAL * float(np.median(rest)) + 1e-9 * float(np.abs(y).max())
    x, y = x[inside], y[inside]
    product, squares = float(x @ y), (float(x @ x), float(y @ y))
    if product == 0 or min(squares) == 0:
        return Line(math.nan, math.inf, len(x))
    slope = math.copysign(math.sqrt(squares[1] / squares[0]), product)
    return Line(slope, math.sqrt(squares[0] * squares[1]) / abs(product), len(x))
