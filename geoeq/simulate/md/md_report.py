"""The end of a simulation: what it found, as numbers and as a picture."""

from __future__ import annotations

import json
import math
from typing import Any

from ase.io import iread

from geoeq.files import read_log, write_text
from geoeq.resources import import_extra
from geoeq.simulate.md.md_folder import PICTURE, RESULTS
from geoeq.simulate.md.radial_distribution import REACH, RadialDistribution, radial_distribution
from geoeq.simulate.md.simulation import LOG, TRAJECTORY, Simulation
from geoeq.simulate.md.summary import summarize

__all__ = ["write_summary"]

#: Frames of which the radial distribution is the mean, and pairs in all of them, at the most.
_FRAMES, _EDGES = 50, 4_000_000

#: Atoms in an Å^3 of something dense, to guess the number of pairs.
_DENSITY = 0.1


def write_summary(simulation: Simulation, title: str, *, stopped: str | None = None) -> dict[str, Any]:
    """Write ``results.json`` and ``summary.png`` into the folder of a simulation that has run.

    Args:
        simulation: what ran.
        title: of the picture.
        stopped: why it ended before its last step; None where it did not.

    Returns:
        What is in ``results.json``: the step, means and deviations of the second half of the log, the drift of what is
        conserved, and the speed.

    Raises:
        MissingExtraError: the extra "train" is not installed.
    """
    import_extra("matplotlib", "train")
    from geoeq.simulate.md.md_plot import draw_summary

    folder, settings = simulation.folder, simulation.settings
    rows = read_log(folder / LOG)
    time = simulation.step * settings.timestep / 1000
    found = {"step": simulation.step, "time [ps]": time, "stopped": stopped, **summarize(rows, settings)}
    write_text(folder / RESULTS, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    if rows:
        draw_summary(folder / PICTURE, rows, _radial(simulation), settings, title)
    return found


def _radial(simulation: Simulation) -> RadialDistribution | None:
    """Of the second half of the frames, of fewer and up to a shorter distance where there are many atoms."""
    every, count = simulation.settings.frame_every, len(simulation.atoms)
    frames = simulation.step // every + 1
    if count < 2:
        return None
    neighbors = min(count, 4 / 3 * math.pi * REACH**3 * _DENSITY)
    if simulation.atoms.pbc.any():
        neighbors = 4 / 3 * math.pi * REACH**3 * _DENSITY
    reach = REACH * min(1.0, (_EDGES / (count * neighbors)) ** (1 / 3))
    chosen = min(_FRAMES, max(1, int(_EDGES / (count * neighbors))), frames - frames // 2)
    stride = max(1, (frames - frames // 2) // chosen)
    found = iread(simulation.folder / TRAJECTORY, index=slice(frames // 2, frames, stride), format="extxyz")
    return radial_distribution(list(found), reach)
