"""Forces: there at all, of a likely size, without sum and torque, none that stands out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geoeq.data_doctor.findings import Finding, finding
from geoeq.data_doctor.statistics import standing_out
from geoeq.data_doctor.survey import Chart

__all__ = ["check_forces"]

#: Sums of forces: for each atom in eV/Å, and as a part of the root of the sum of squares.
_NET, _NET_SHARE = 0.02, 0.1

#: Sums that a careful calculation does not leave, for each atom in eV/Å.
_CAREFUL = 1e-3

#: Torques, as a part of what forces in random directions have.
_TORQUE_SHARE = 0.1

#: Components of forces are rarely larger on average, eV/Å: bonds at 3000 K have some 3.
_LARGE, _SMALL = 12.0, 1e-4

_TIMES, _GAP = 8.0, 2.5


def check_forces(chart: Chart) -> Iterator[Finding]:
    """Judge the forces of the structures that were measured."""
    if "force_rms" not in chart.columns:
        return
    rms, size = chart.columns["force_rms"], chart.columns["size"]
    if not np.isfinite(rms).all():
        return  # the check of labels says so
    if not rms.any():
        yield finding(
            "forces", "error", "All forces are zero.", "Forces were not calculated or not read: see the keys."
        )
        return
    typical = float(np.sqrt(np.mean(rms**2)))
    if typical > _LARGE:
        yield finding(
            "unit of the forces",
            "warning",
            f"Components of forces are {typical:.3g} eV/Å on average, more than "
            "matter at 3000 K has, as if they were in kcal/mol/Å (1 eV/Å is 23.06).",
            "Compare the unit in the card.",
        )
    elif typical < _SMALL:
        yield finding(
            "unit of the forces",
            "warning",
            f"Components of forces are {typical:.3g} eV/Å on average: all "
            "structures are relaxed, or the unit is a larger one.",
            "Compare the unit in the card.",
        )
    rows = standing_out(chart.columns["largest_force"], _TIMES, _GAP)
    if len(rows):
        largest = chart.columns["largest_force"]
        yield finding(
            "forces",
            "warning",
            f"Forces of up to {largest[rows[0]]:.3g} eV/Å stand out; half of the "
            f"structures have none above {np.median(largest):.3g}.",
            "Look at them: atoms that all but touch, or a calculation that did not converge.",
            chart.places[rows],
        )
    if chart.dataset.free_atoms(chart.places[:1]) is None:
        yield from _sums(chart, size > 1)


def _sums(chart: Chart, several: NDArray[np.bool_]) -> Iterator[Finding]:
    columns = chart.columns
    each = columns["net_force"] / columns["size"]
    bad = np.flatnonzero((each > _NET) & (columns["net_share"] > _NET_SHARE) & several)
    if len(bad):
        yield finding(
            "net force",
            "warning",
            f"The forces of {len(bad)} of {len(each)} structures do not add up to zero: "
            f"to as much as {each[bad].max():.3g} eV/Å for each atom.",
            "Without an outer field they do: atoms are left out or mixed up, or the grid is too coarse.",
            chart.places[bad[np.argsort(-each[bad])]],
        )
    elif several.any() and float(np.median(each[several])) > _CAREFUL:
        yield finding(
            "net force",
            "note",
            f"Forces add up to {np.median(each[several]):.2g} eV/Å for each atom in half of "
            "the structures, more than the 0.001 of a careful calculation.",
        )
    periodic = columns["periodic"] > 0
    turned = np.flatnonzero(
        (columns["torque_share"] > _TORQUE_SHARE) & (columns["size"] > 2) & ~periodic & (columns["force_rms"] > 0.01)
    )
    turned = np.setdiff1d(turned, bad)
    if len(turned):
        share = columns["torque_share"]
        yield finding(
            "torque",
            "warning",
            f"The forces of {len(turned)} of {len(share)} structures would turn them, with "
            f"{share[turned].max():.2g} of what forces in random directions have.",
            "Without an outer field they do not: forces belong to other atoms or to another orientation.",
            chart.places[turned[np.argsort(-share[turned])]],
        )
