"""Which structures are worth a label: uncertain ones that differ from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoeq.errors import InputError

__all__ = ["farthest_points", "select"]

Values = NDArray[np.float64]


def select(uncertainty: Values, features: Values, count: int, pool: int) -> NDArray[np.int64]:
    """The most uncertain structure, then each time the one farthest from all chosen, of the most uncertain ones.

    Args:
        uncertainty: of each structure.
        features: of each structure; each column is divided by its standard deviation.
        count: how many to choose; fewer where there are not so many.
        pool: among how many of the most uncertain.

    Shapes:
        uncertainty: [S]. features: [S, W]. Returns up to [count], places in the order of choice.

    Raises:
        InputError: a number is not positive, or an uncertainty is not finite.
    """
    if count < 1 or pool < count:
        raise InputError(f"{count} structures of the {pool} most uncertain cannot be chosen.")
    if not np.isfinite(uncertainty).all():
        raise InputError(
            f"The uncertainty of structure {int(np.flatnonzero(~np.isfinite(uncertainty))[0])} is no number."
        )
    order = np.argsort(-uncertainty, kind="stable")[:pool]
    spread = features.std(0)
    varies = spread > 1e-9 * np.abs(features).max(0)  # the others hold rounding alone
    scaled = features[order] / np.where(varies, spread, np.inf)
    return order[farthest_points(scaled, min(count, len(order)))]


def farthest_points(points: Values, count: int) -> NDArray[np.int64]:
    """The first point, then each time the one whose nearest chosen one is farthest.

    Shapes:
        points: [S, W]. Returns [count].
    """
    chosen = [0]
    nearest = np.linalg.norm(points - points[0], axis=1)
    nearest[0] = -1.0
    while len(chosen) < count:
        place = int(nearest.argmax())
        chosen.append(place)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[place], axis=1))
        nearest[chosen] = -1.0  # never twice, also where others coincide with it
    return np.array(chosen, dtype=np.int64)
