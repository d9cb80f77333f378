"""Many structures from the few that come with geoeq, for ``data.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import geoeq.data
from geoeq.data.dataset import Dataset
from geoeq.data.store import write_store

__all__ = ["qm9_sized", "slabs"]

#: Atoms of a molecule of QM7 that is taken, and the target whose values stand for all.
SMALLEST, TARGET = 17, "atomization_energy"


def repeated(source: Dataset, chosen: Sequence[int], targets: dict[str, str], folder: Path) -> Dataset:
    """The structures ``chosen`` with jitter, in a cache of their own; ``targets``: new name -> name in ``source``."""
    batch = source.batch(chosen, targets=list(set(targets.values())), dtype=torch.float64)
    jitter = np.random.default_rng(0).normal(scale=0.02, size=batch.pos.shape)
    arrays = {"positions": batch.pos.numpy() + jitter, "numbers": batch.z.numpy().astype(np.uint8)}
    arrays |= {"ptr": batch.ptr.numpy(), **{f"target.{new}": batch[old].numpy() for new, old in targets.items()}}
    arrays |= {name: batch[name].numpy() for name in ("cell", "pbc") if name in batch}
    write_store(folder, arrays, {})
    return Dataset.open(replace(source.card, name="repeated"), folder)


def qm9_sized(count: int, folder: Path) -> Dataset:
    """Molecules with as many atoms, and as many columns, as QM9 has."""
    source = geoeq.data.load("qm7", root=folder)
    large = np.flatnonzero(np.diff(source.ptr) >= SMALLEST)
    targets = dict.fromkeys(geoeq.data.load_card("qm9").targets, TARGET)
    return repeated(source, np.resize(large, count), targets, folder / f"molecules-{count}")


def slabs(count: int, folder: Path) -> Dataset:
    """Periodic slabs with an adsorbate, with energies and forces."""
    source = geoeq.data.load("oc20_s2ef_200k", sample=True, root=folder)
    targets = {"energy": "energy", "forces": "forces"}
    return repeated(source, np.resize(np.arange(len(source)), count), targets, folder / f"slabs-{count}")
