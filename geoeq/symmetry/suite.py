"""Table of checks: measurement, tolerances, and the usual cause of a failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from geoeq.symmetry.invariance import (
    Measured,
    axis_edges,
    continuity,
    degenerate_frames,
    periodic_images,
    precision,
    size_extensivity,
    symmetry,
    wrapping,
)
from geoeq.symmetry.mechanics import derivatives, energy_drift, forces, stress
from geoeq.symmetry.smoothness import passages, smoothness
from geoeq.symmetry.subject import Subject

__all__ = ["CHECKS", "Check"]


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        measure: function from subject and seed to errors, or to the reason why the check does not apply.
        double: largest error for a subject that computes in float64.
        single: largest error for a subject that computes in float32.
        turns: whether it involves rotations, which a subject may respect only up to an error that it states.
        meaning: usual cause of a failure, and where to look.
    """

    measure: Callable[[Subject, int], Measured | str]
    double: float
    single: float
    turns: bool
    meaning: str


#: Name -> check, in the order in which they run.
CHECKS: dict[str, Check] = {
    "rotation": Check(
        partial(symmetry, "rotation"), 1e-9, 1e-4, True,
        "a vector was rotated by a matrix instead of its transpose, components of different irreps were mixed, or a "
        "nonlinearity acts on components; geoeq check --layers finds the layer",
    ),
    "reflection": Check(
        partial(symmetry, "reflection"), 1e-9, 1e-4, True,
        "a parity is wrong, as of a cross product or an odd irrep used as an even one; if intended, pass group='SE(3)'",
    ),
    "translation": Check(
        partial(symmetry, "translation"), 1e-9, 1e-4, False,
        "absolute coordinates leak in: use differences of positions, and dipoles of neutral charge distributions",
    ),
    "permutation": Check(
        partial(symmetry, "permutation"), 1e-9, 1e-4, False,
        "the order of the atoms matters: a limit on neighbours that keeps the first instead of the nearest, a sum over "
        "a wrong index, or an output that is not in the order of the atoms",
    ),
    "batch invariance": Check(
        partial(symmetry, "batch"), 1e-9, 1e-4, False,
        "structures of one batch affect each other: a pooling or normalisation over all nodes, or edges between graphs",
    ),
    "periodic images": Check(
        periodic_images, 1e-9, 1e-4, False,
        "outputs depend on which periodic image of an atom is listed: absolute or centred coordinates are used where "
        "there should be edge vectors, or edges are searched without the images",
    ),
    "wrapping": Check(
        wrapping, 1e-9, 1e-4, False,
        "outputs change as atoms are brought back into the cell, which a simulation may do at any step; see periodic "
        "images",
    ),
    "size extensivity": Check(
        size_extensivity, 1e-9, 1e-4, False,
        "two structures far apart affect each other: a mean or a norm over all atoms, a network after the sum, or no "
        "cutoff",
    ),
    "float32 against float64": Check(
        precision, 1e-4, 1e-4, False,
        "precision is lost: differences of large numbers, or reference energies added in float32",
    ),
    "derivatives": Check(
        derivatives, 1e-6, 1e-2, False,
        "PyTorch's derivative is not that of the function: a detach, a no_grad, a rounding, or a wrong custom backward",
    ),
    "forces": Check(
        forces, 1e-6, 1e-2, False,
        "forces are not minus the derivative of the energy: a sign, a unit, a detached path, or a separate head",
    ),
    "edges along the axes": Check(
        axis_edges, 1e-8, 1e-3, True,
        "directions along an axis are special: angles or frames with a pole there, or a division by zero",
    ),
    "nearly degenerate frames": Check(
        degenerate_frames, 1e-6, 1e-2, True,
        "frames are derived from axes that are not unique in linear, planar or symmetric structures",
    ),
    "continuity": Check(
        continuity, 1e-3, 1e-1, False,
        "outputs jump as the choice of frames or neighbours changes in a symmetric structure",
    ),
    "smoothness at the cutoff": Check(
        smoothness, 1e-6, 1e-2, False,
        "a contribution is switched abruptly: messages that are not zero at the cutoff, a potential truncated without "
        "a switching function, or a limit on neighbours",
    ),
    "smooth passages": Check(
        passages, 1e-6, 1e-2, False,
        "outputs or forces jump as an atom passes through a line, a plane or an axis: frames or angles defined by "
        "directions that vanish there, or a choice between alternatives that are equal there",
    ),
    "stress": Check(
        stress, 1e-6, 1e-2, False,
        "a sign, a factor of the volume, a unit or the order of components; the convention is eV/Å^3, positive under "
        "tension as in ASE",
    ),
    "energy drift": Check(
        energy_drift, 1e-3, 1e-1, False,
        "a simulation does not conserve energy: forces are not its derivative, or are discontinuous; in eV/atom/ps",
    ),
}  # fmt: skip
