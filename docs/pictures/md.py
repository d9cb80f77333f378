"""Draw md.png: argon with ASE's Lennard-Jones potential at 40 K and zero pressure. Run from the root of a checkout."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ase.build import bulk
from ase.calculators.lj import LennardJones

from geoeq.simulate import MDSettings, Simulation, write_summary


def main() -> None:
    """Simulate 20 ps and copy the plot."""
    atoms = bulk("Ar", a=5.4, cubic=True) * 2
    atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=7.5, ro=6.0, smooth=True)
    settings = MDSettings("npt", steps=5000, temperature=40.0, pressure=0.0, timestep=4.0, frame_every=20)
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(atoms, settings, Path(folder))
        simulation.run()
        write_summary(simulation, "Lennard-Jones, Ar32, npt, 40 K, nose-hoover, 0 GPa")
        shutil.copy(Path(folder) / "summary.png", Path(__file__).with_name("md.png"))


if __name__ == "__main__":
    main()
