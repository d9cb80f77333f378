"""Atoms that a relaxation holds: their forces are neither trained on nor counted in errors, as is published."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.data import Data

__all__ = ["MOVED", "free"]

#: Fields that are of free atoms alone.
MOVED = ("forces", "relaxed_positions")


def free(name: str, values: Tensor, data: Data) -> Tensor:
    """The rows of the atoms that are free, if the field ``name`` is of those alone; else ``values``.

    Shapes:
        values: [N, ..]. ``data.fixed``: [N] bool; without it all atoms are free.
    """
    fixed = getattr(data, "fixed", None)
    if name not in MOVED or not isinstance(fixed, Tensor) or len(fixed) != len(values):
        return values
    return values[~fixed.bool()]
