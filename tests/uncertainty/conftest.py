"""Argon clusters with the energies and forces of Lennard-Jones, and networks that were not trained on them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from rich.console import Console

from geoeq.data import load
from geoeq.data.splits import indices_sha256
from geoeq.models import EGNN, Forces, GraphScalar
from geoeq.models.checkpoint import save_checkpoint


def cluster(seed: int) -> Atoms:
    """Five atoms about the corners and the top of a pyramid, with labels."""
    places = 3.8 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0.5, 0.5, 0.75]])
    noise = np.random.default_rng(seed)
    atoms = Atoms("Ar5", places + noise.uniform(0.02, 0.3) * noise.standard_normal((5, 3)))
    atoms.calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.0)
    found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=80)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 60 labelled clusters and two runs of them, in which one is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEOEQ_CACHE", str(tmp_path / "cache"))
    write("argon.xyz", [cluster(seed) for seed in range(60)])
    dataset = load("argon.xyz")
    split = dataset.split(None)
    data = {"name": "argon.xyz", "sample": False, "split": dataset.card.default_split}
    data["split_sha256"] = indices_sha256(split)
    for seed in range(2):
        torch.manual_seed(seed)
        model = Forces(EGNN([GraphScalar("energy")], width=6, layers=1, cutoff=6.0)).double()
        model.fit_heads(dataset.batch(split["train"], targets=["energy", "forces"], dtype=torch.float64))
        save_checkpoint(model, f"run{seed}", {"data": data, "targets": ["energy", "forces"]})
    return tmp_path
