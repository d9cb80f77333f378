"""The table of checks: what is measured, how large an error may be, and what it usually means if it is larger."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from geoeq.symmetry.invariance import (
    Measured,
    axis_edges,
    continuity,
    degenerate_frames,
    precision,
    size_extensivity,
    symmetry,
)
from geoeq.symmetry.mechanics import derivatives, energy_drift, forces, stress
from geoeq.symmetry.smoothness import smoothness
from geoeq.symmetry.subject import Candidate

__all__ = ["CHECKS", "Check"]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        measure: candidate and seed to errors, or why the check does not apply.
        double: the largest error of a candidate that computes in float64.
        single: of one that computes in float32.
        turns: whether rotations are in it, which a candidate may respect to an error of its own only.
        meaning: what a failure usually is, and where to look.
    """

    measure: Callable[[Candidate, int], Measured | str]
    double: float
    single: float
    turns: bool
    meaning: str


#: name -> check, in the order in which they run.
CHECKS: dict[str, Check] = {
    "rotation": Check(
        partial(symmetry, "rotation"), 1e-9, 1e-4, True,
        "a vector was turned by a matrix and not its transpose, components were mixed that do not turn together, or a "
        "nonlinearity acts on components; geoeq check --layers finds the layer",
    ),
    "reflection": Check(
        partial(symmetry, "reflection"), 1e-9, 1e-4, True,
        "a parity is wrong: a cross product or an odd irrep taken for an even one; if that is meant, say group='SE(3)'",
    ),
    "translation": Check(
        partial(symmetry, "translation"), 1e-9, 1e-4, False,
        "absolute coordinates leak in: use differences of positions, and dipoles of neutral charges",
    ),
    "permutation": Check(
        partial(symmetry, "permutation"), 1e-9, 1e-4, False,
        "the order of the atoms matters: a cap on neighbours that takes the first instead of the nearest, a sum over a "
        "wrong index, or an output that is not in the order of the atoms",
    ),
    "batch invariance": Check(
        partial(symmetry, "batch"), 1e-9, 1e-4, False,
        "structures of one batch see each other: a pooling or normalisation over all nodes, or edges between graphs",
    ),
    "size extensivity": Check(
        size_extensivity, 1e-9, 1e-4, False,
        "two structures far apart see each other: a mean over atoms or a network after the sum, or no cutoff",
    ),
    "float32 against float64": Check(
        precision, 1e-4, 1e-4, False,
        "digits are lost: differences of large numbers, or reference energies added in float32",
    ),
    "derivatives": Check(
        derivatives, 1e-6, 1e-2, False,
        "what PyTorch differentiates is not the function: a detach, a no_grad, a rounding, or a wrong custom backward",
    ),
    "forces": Check(
        forces, 1e-6, 1e-2, False,
        "forces are not minus the derivative of the energy: a sign, a unit, a detached path, or a head of their own",
    ),
    "edges along the axes": Check(
        axis_edges, 1e-8, 1e-3, True,
        "a direction along an axis is special: angles or frames with a pole there, or a division by zero",
    ),
    "nearly degenerate frames": Check(
        degenerate_frames, 1e-6, 1e-2, True,
        "frames are taken from axes that are not unique in linear, planar or symmetric structures",
    ),
    "continuity": Check(
        continuity, 1e-3, 1e-1, False,
        "outputs jump as frames or neighbours are chosen anew in a symmetric structure",
    ),
    "smoothness at the cutoff": Check(
        smoothness, 1e-6, 1e-2, False,
        "something is switched on or off: messages that do not fall to zero at the cutoff, a potential cut without "
        "a switching function, or a cap on neighbours",
    ),
    "stress": Check(
        stress, 1e-6, 1e-2, False,
        "a sign, a factor of the volume, a unit or the order of components; inside are eV/Å^3, positive under tension "
        "as in ASE",
    ),
    "energy drift": Check(
        energy_drift, 1e-3, 1e-1, False,
        "a simulation does not conserve energy: forces are not its derivative, or jump; in eV/atom/ps",
    ),
}  # fmt: skip
