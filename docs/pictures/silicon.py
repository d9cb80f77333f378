"""Draw silicon.png, an equation of state: ``python docs/pictures/silicon.py runs/si-si-quick``."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.eos import EquationOfState
from matplotlib.figure import Figure

from geoeq.plots import BLUE, GREY, INK, ORANGE, style_axes
from geoeq.simulate import GeoeqCalculator

#: PBE lattice constant in Å of the crystal in the data set mlearn.
PBE = 5.469


def main(run: Path) -> None:
    """Compute energies and pressures of the crystal and plot them."""
    calculator = GeoeqCalculator(run)
    volumes, energies, pressures = [], [], []
    for constant in np.linspace(5.25, 5.70, 13):
        crystal = bulk("Si", a=constant)
        crystal.calc = calculator
        volumes.append(crystal.get_volume() / 2)
        energies.append(crystal.get_potential_energy() / 2)
        pressures.append(-crystal.get_stress()[:3].mean() / units.GPa)
    fit = EquationOfState(volumes, energies, eos="birchmurnaghan")
    volume, lowest, modulus = fit.fit()
    line = np.linspace(min(volumes), max(volumes), 400)
    curve = np.array([fit.func(v, *fit.eos_parameters) for v in line])

    figure = Figure(figsize=(10.0, 3.6), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    style_axes(left), style_axes(right)
    left.plot(line, 1000 * (curve - lowest), color=ORANGE, label="Birch-Murnaghan")
    left.plot(volumes, 1000 * (np.array(energies) - lowest), "o", color=BLUE, label="potential")
    left.axvline(PBE**3 / 8, color=GREY, linewidth=1, linestyle=(0, (4, 3)), label=f"PBE, {PBE} Å")
    left.set(ylabel="energy [meV/atom]", xlabel="volume [Å³/atom]")
    right.plot(line, -np.gradient(curve, line) / units.GPa, color=ORANGE, label="slope of the curve")
    right.plot(volumes, pressures, "o", color=BLUE, label="pressure of the potential")
    right.set(ylabel="pressure [GPa]", xlabel="volume [Å³/atom]")
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    result = f"lattice constant {(8 * volume) ** (1 / 3):.3f} Å, bulk modulus {modulus / units.GPa:.0f} GPa"
    figure.suptitle(f"{calculator.model.title}, silicon: {result}", x=0.01, ha="left", fontsize=12, color=INK)
    figure.savefig(Path(__file__).with_name("silicon.png"))
    sys.stdout.write(result + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
