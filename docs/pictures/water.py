"""Draw water.png, radial distribution functions of water: ``python docs/pictures/water.py runs/md-water-nvt``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from matplotlib.figure import Figure

from geoeq.data import load
from geoeq.plots import BLUE, GREY, INK, ORANGE, style_axes
from geoeq.simulate.md.radial_distribution import radial_distribution

#: Half of the edge length of the periodic cube, in Å.
REACH = 6.2


def main(run: Path) -> None:
    """Compute the radial distribution functions of a simulation and of the data and plot them."""
    dataset = load("water")
    structures = [dataset[place] for place in range(len(dataset))]
    data = [Atoms(s.z.numpy(), s.pos.double().numpy(), cell=s.cell.reshape(3, 3).numpy(), pbc=True) for s in structures]
    frames = ase.io.read(run / "trajectory.extxyz", index=":")
    half = frames[len(frames) // 2 :]
    simulated = radial_distribution(half, REACH, bins=124)
    truth = radial_distribution(data, REACH, bins=124)

    figure = Figure(figsize=(10.0, 3.4), dpi=150, layout="constrained")
    for axes, pair, top in zip(figure.subplots(1, 3), ("O-O", "H-O", "H-H"), (4.0, 3.0, 3.5)):
        style_axes(axes)
        axes.axhline(1.0, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(
            truth.distances, truth.values[pair], color=BLUE, linewidth=1.6, label=f"data ({len(data)} structures)"
        )
        axes.plot(simulated.distances, simulated.values[pair], color=ORANGE, linewidth=1.3, label="simulation")
        axes.set(xlim=(0.5, REACH), ylim=(0, top), xlabel="distance [Å]", ylabel=f"g(r), {pair}")
    figure.axes[0].legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right")
    settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))["settings"]
    time = (len(half) - 1) * settings["frame every"] * settings["timestep [fs]"] / 1000
    figure.suptitle(
        f"Liquid water, {settings['temperature [K]']:g} K, {len(half)} frames of {time:.2g} ps",
        x=0.01,
        ha="left",
        fontsize=12,
        color=INK,
    )
    figure.savefig(Path(__file__).with_name("water.png"))
    error = {pair: float(np.abs(simulated.values[pair] - truth.values[pair]).mean()) for pair in truth.values}
    sys.stdout.write(", ".join(f"{pair}: mean difference {value:.3f}" for pair, value in error.items()) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
