"""Draws water.png, how far atoms are apart in a simulation: ``python docs/pictures/water.py runs/md-water-nvt``."""

from __future__ import annotations

import sys
from pathlib import Path

import ase
from ase.io import read
from matplotlib.figure import Figure

from geoeq.data import load
from geoeq.simulate.radial import radial_distribution
from geoeq.training.pictures import BLUE, GREY, INK, ORANGE, style_axes

#: Half of the cube, in Å.
REACH = 6.2


def main(run: Path) -> None:
    """Compare the second half of a simulation with the structures of the data set."""
    dataset = load("water")
    data = [dataset[place] for place in range(0, 400, 4)]
    known = [ase.Atoms(one.z, one.pos.double(), cell=one.cell[0].double(), pbc=True) for one in data]
    frames = read(run / "trajectory.extxyz", index=":")
    simulated = frames[len(frames) // 2 :]
    found, true = radial_distribution(simulated, REACH), radial_distribution(known, REACH)

    figure = Figure(figsize=(10.0, 3.4), dpi=150, layout="constrained")
    for axes, pair in zip(figure.subplots(1, 3), ("O-O", "H-O", "H-H")):
        style_axes(axes)
        axes.plot(true.distances, true.values[pair], color=ORANGE, linewidth=2.5, label="data set")
        axes.plot(found.distances, found.values[pair], color=BLUE, linewidth=1.2, label="potential")
        axes.axhline(1.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=(0, REACH), ylim=(0, 4), xlabel="distance [Å]", ylabel="g(r)")
        axes.set_title(pair, loc="left", fontsize=10, color=INK)
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    time = (simulated[-1].info["time_fs"] - simulated[0].info["time_fs"]) / 1000
    title = f"water, {len(simulated)} frames of {time:.2g} ps"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    figure.savefig(Path(__file__).with_name("water.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
