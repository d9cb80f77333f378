"""From the ethanol that comes with geoeq to dynamics with a potential of it, in short."""

from __future__ import annotations

import io
from pathlib import Path

import ase
import numpy as np
import pytest
from ase.io import read
from ase.neighborlist import build_neighbor_list
from rich.console import Console

from geoeq.data import load
from geoeq.resources import share
from geoeq.simulate import GeoeqCalculator, MDSettings, Simulation
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train


@pytest.mark.slow
def test_a_short_training_gives_a_potential_that_holds_the_molecule_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained potential, or one with the sign of forces wrong, tears it apart at once."""
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    file = share("recipes") / "rmd17" / "ethanol-quick.yaml"
    recipe = read_recipe(file, ["epochs=4", f"run={tmp_path / 'run'}", "threads=1", "device=cpu"])
    energy, forces = train(recipe, file, Console(file=io.StringIO()))
    assert forces.model.errors["test"]["MAE"] < 0.3 * forces.rows[0].errors["test"]["MAE"]
    assert energy.model.errors["test"]["MAE"] < 0.5 * energy.rows[0].errors["test"]["MAE"]

    dataset = load("rmd17_ethanol")
    start = dataset[int(dataset.split()["test"][0])]
    atoms = ase.Atoms(start.z.numpy(), start.pos.double().numpy(), calculator=GeoeqCalculator(tmp_path / "run"))
    Simulation(atoms, MDSettings("nvt", steps=400, temperature=300.0, frame_every=10), tmp_path).run()
    frames = read(tmp_path / "trajectory.extxyz", index=":")
    bonds = build_neighbor_list(frames[0], self_interaction=False).get_connectivity_matrix().tocoo()
    lengths = np.array([frame.get_all_distances()[bonds.row, bonds.col] for frame in frames])
    assert lengths.shape == (41, 8)
    assert (lengths / lengths[0]).max() < 1.5
