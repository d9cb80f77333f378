"""Check forces: magnitude, outliers, net force and torque."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoeq.data_doctor.findings import Finding, error, note, warning
from geoeq.data_doctor.robust import outliers
from geoeq.data_doctor.statistics import Statistics

__all__ = ["check_forces"]

#: Net force: largest value per atom in eV/Å, and relative to the root of the sum of squares.
_NET, _NET_SHARE = 0.02, 0.1

#: Net force per atom of a careful calculation, in eV/Å.
_CAREFUL = 1e-3

#: Largest torque, relative to that of forces in random directions.
_TORQUE_SHARE = 0.1

#: Plausible range of the root mean square of force components, in eV/Å: bonds at 3000 K have about 3.
_LARGE, _SMALL = 12.0, 1e-4

#: Outliers: multiple of the median, and gap to the next smaller value.
_TIMES, _GAP = 8.0, 2.5


def check_forces(statistics: Statistics) -> Iterator[Finding]:
    """Check the forces of the measured structures."""
    if "force_rms" not in statistics.columns:
        return
    rms, size = statistics.columns["force_rms"], statistics.columns["size"]
    if not np.isfinite(rms).all():
        return  # reported by the check of labels
    if not rms.any():
        yield error("forces", "All forces are zero.", "They were not calculated, or not read: check the keys.")
        return
    typical = float(np.sqrt(np.mean(rms**2)))
    if typical > _LARGE:
        yield warning(
            "unit of the forces",
            f"The root mean square of force components is {typical:.3g} eV/Å, more than in matter at 3000 K, as if "
            "they were in kcal/mol/Å (1 eV/Å is 23.06).",
            "Check the unit in the card.",
        )
    elif typical < _SMALL:
        yield warning(
            "unit of the forces",
            f"The root mean square of force components is {typical:.3g} eV/Å: all structures are relaxed, or the "
            "forces are in a larger unit.",
            "Check the unit in the card.",
        )
    largest = statistics.columns["largest_force"]
    rows = outliers(largest, _TIMES, _GAP)
    if len(rows):
        yield warning(
            "forces",
            f"There are outliers with forces of up to {largest[rows[0]]:.3g} eV/Å; half of the structures have none "
            f"above {np.median(largest):.3g} eV/Å.",
            "Inspect them: atoms may almost coincide, or a calculation did not converge.",
            statistics.indices[rows],
        )
    if statistics.dataset.free_atoms(statistics.indices[:1]) is None:
        yield from _net_forces(statistics, size > 1)


def _net_forces(statistics: Statistics, several: NDArray[np.bool_]) -> Iterator[Finding]:
    columns, indices = statistics.columns, statistics.indices
    per_atom = columns["net_force"] / columns["size"]
    bad = np.flatnonzero((per_atom > _NET) & (columns["net_share"] > _NET_SHARE) & several)
    if len(bad):
        yield warning(
            "net force",
            f"The forces of {len(bad)} of {len(per_atom)} structures do not add up to zero, but to up to "
            f"{per_atom[bad].max():.3g} eV/Å per atom.",
            "Without an external field they should: atoms are missing or permuted, or the integration grid is too "
            "coarse.",
            indices[bad[np.argsort(-per_atom[bad])]],
        )
    elif several.any() and float(np.median(per_atom[several])) > _CAREFUL:
        yield note(
            "net force",
            f"The net force is {np.median(per_atom[several]):.2g} eV/Å per atom (median), more than the 0.001 eV/Å of "
            "a careful calculation.",
        )
    share = columns["torque_share"]
    periodic = columns["periodic"] > 0
    rotating = np.flatnonzero(
        (share > _TORQUE_SHARE) & (columns["size"] > 2) & ~periodic & (columns["force_rms"] > 0.01)
    )
    rotating = np.setdiff1d(rotating, bad)
    if len(rotating):
        yield warning(
            "torque",
            f"The forces of {len(rotating)} of {len(share)} structures have a net torque, of up to "
            f"{share[rotating].max():.2g} times that of forces in random directions.",
            "Without an external field it should be zero: the forces belong to other atoms or to another orientation.",
            indices[rotating[np.argsort(-share[rotating])]],
        )
