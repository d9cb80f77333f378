"""Finite groups of rotations and reflections: the point groups of molecules, in Schoenflies notation."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from geoeq.constants import constant
from geoeq.errors import InputError
from geoeq.geometry.rotations.conversions import matrix_from_rotation_vector

__all__ = ["finite_group", "is_finite_group"]

#: Highest order of an axis; averages over more elements are better sampled at random.
MAX_ORDER = 64

_NAME = re.compile(r"([CDSTOI])([1-9]\d*)?([vhd]?)")
#: Suffixes allowed after each letter.
_SUFFIXES = {"C": ("", "v", "h"), "D": ("", "h", "d"), "S": ("",), "T": ("", "h", "d"), "O": ("", "h"), "I": ("", "h")}
#: Diagonals of the inversion, and of the mirror planes perpendicular to the z axis and through it.
_MIRRORS = ((-1, -1, -1), (1, 1, -1), (1, -1, 1))
_AXES = {"x": 0, "y": 1, "z": 2}


def is_finite_group(name: str) -> bool:
    """Return whether ``finite_group`` knows a group of this name."""
    return _generators(name) is not None


@constant
def finite_group(name: str, axis: str = "z") -> Tensor:
    """Return all elements of a point group as orthogonal matrices, the identity first.

    Pure rotation groups are "C4" (cyclic, of any order), "D3" (dihedral), "T", "O" and "I" (of the tetrahedron, the
    octahedron and the icosahedron: 12, 24 and 60). With reflections: "Ci" (inversion), "Cs", "C4h", "C4v", "S4",
    "D3h", "D3d", "Td", "Th", "Oh" and "Ih".

    Args:
        name: Schoenflies symbol of the group.
        axis: principal axis of cyclic and dihedral groups, "x", "y" or "z". The twofold axes of T and I, and the
            fourfold axes of O, lie along x, y and z.

    Shapes:
        Returns [F, 3, 3], float64.

    Raises:
        InputError: the group or axis is unknown, or the order of the group's axis is above 64.
    """
    generators = _generators(name)
    if generators is None:
        raise InputError(
            f"No point group is called '{name}'. Known are Cn, Cnh, Cnv, S2n, Dn, Dnh and Dnd with a number n "
            f"up to {MAX_ORDER}, Ci, Cs, T, Td, Th, O, Oh, I and Ih."
        )
    if axis not in _AXES:
        raise InputError(f"axis is '{axis}'; it must be 'x', 'y' or 'z'.")
    new = [torch.eye(3)]
    elements = {_key(new[0]): new[0]}
    while new:
        products = {_key(product): product for matrix in new for product in torch.stack(generators) @ matrix}
        fresh = {key: product for key, product in products.items() if key not in elements}
        elements |= fresh
        new = list(fresh.values())
    shift = (_AXES[axis] - 2) % 3  # coordinates of z, x, y to those of the axis and the next
    return torch.stack(list(elements.values())).roll((shift, shift), dims=(1, 2))


def _key(matrix: Tensor) -> tuple[int, ...]:
    """Return a key that is equal for matrices that differ only by rounding."""
    return tuple((matrix.flatten() * 1e6).round().int().tolist())


def _axis_rotation(order: int, direction: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Tensor:
    vector = torch.tensor(direction, dtype=torch.float64)
    return matrix_from_rotation_vector(2 * math.pi / order * vector / vector.norm())


def _generators(name: str) -> list[Tensor] | None:
    """Return matrices that generate the group; None if there is no such group."""
    inversion, across, upright = (torch.diag(torch.tensor(row).double()) for row in _MIRRORS)
    if name in ("Ci", "Cs"):
        return [inversion if name == "Ci" else across]
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    letter, number, suffix = match.group(1), int(match.group(2) or 2), match.group(3)
    bad = number > MAX_ORDER or (letter in "CDS") != bool(match.group(2)) or (letter == "S" and number % 2 == 1)
    if bad or suffix not in _SUFFIXES[letter]:
        return None
    three, golden = _axis_rotation(3, (1.0, 1.0, 1.0)), (1 + math.sqrt(5)) / 2
    proper = {
        "C": [_axis_rotation(number)],
        "D": [_axis_rotation(number), _axis_rotation(2, (1.0, 0.0, 0.0))],
        "S": [_axis_rotation(number) @ across],
        "T": [three, _axis_rotation(2)],
        "O": [three, _axis_rotation(4)],
        "I": [three, _axis_rotation(2), _axis_rotation(5, (0.0, 1.0, golden))],
    }
    with_mirrors = {"": [], "v": [upright], "h": [across if letter in "CD" else inversion]}
    return proper[letter] + (with_mirrors | {"d": [_axis_rotation(2 * number) @ across]})[suffix]
