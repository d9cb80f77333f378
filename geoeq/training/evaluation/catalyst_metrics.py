"""The metrics by which networks for catalysts are compared, of the atoms that are free.

Source:
    Chanussot et al., ACS Catalysis 11, 6059 (2021), arXiv:2010.09990; the thresholds, and that each component of a
    force counts alone, as in the program that evaluates them (``evaluator.py`` of ocp).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from geoeq.data import Dataset

__all__ = ["catalyst_metrics", "distance_metrics", "force_metrics"]

Values = NDArray[np.float64]
Pair = tuple[Values, Values]

_ENERGY, _FORCE = 0.02, 0.03
_DISTANCES = np.arange(0.01, 0.5, 0.001)

#: The energies that belong to forces; the first that is there is taken.
_ENERGIES = ("energy", "total_energy", "adsorption_energy")


def catalyst_metrics(
    dataset: Dataset, places: NDArray[np.int64], found: Mapping[str, Pair]
) -> dict[str, tuple[float, str]]:
    """All metrics that the predictions have: name -> value and unit; none if nothing is said of what is held.

    Args:
        dataset: the records.
        places: of the structures in it, [G].
        found: field -> (prediction, truth), eV, eV/Å and Å; of atoms only those that are free.
    """
    free = dataset.free_atoms(places)
    if free is None:
        return {}
    atoms = np.diff(dataset.ptr)[places]
    counts = np.add.reduceat(free.astype(np.int64), np.concatenate([[0], np.cumsum(atoms)[:-1]]))
    metrics: dict[str, tuple[float, str]] = {}
    energy = next((found[name] for name in _ENERGIES if name in found), None)
    if energy is not None and "forces" in found:
        metrics |= force_metrics(energy, found["forces"], counts)
    if "relaxed_energy" in found:
        guess, truth = found["relaxed_energy"]
        metrics["energy MAE"] = float(np.abs(guess - truth).mean()), "eV"
        metrics["EwT"] = _percentage(np.abs(guess - truth) < _ENERGY)
    if "relaxed_positions" in found:
        metrics |= distance_metrics(found["relaxed_positions"], dataset.cells(places), counts)
    return metrics


def force_metrics(energy: Pair, forces: Pair, counts: NDArray[np.int64]) -> dict[str, tuple[float, str]]:
    """Energy and force MAE, the mean cosine of forces, EwT and EFwT.

    EwT counts structures whose energy is right within 0.02 eV, EFwT those of them whose forces are right within
    0.03 eV/Å in each component.

    Shapes:
        energy: twice [G] eV. forces: twice [M, 3] eV/Å, of the M free atoms. counts: [G], free atoms of each.
    """
    energy_error, force_error = np.abs(energy[0] - energy[1]), np.abs(forces[0] - forces[1])
    lengths = np.linalg.norm(forces[0], axis=-1) * np.linalg.norm(forces[1], axis=-1)
    cosine = (forces[0] * forces[1]).sum(-1) / np.maximum(lengths, 1e-16)
    right = energy_error < _ENERGY
    worst = np.zeros(len(counts))
    np.maximum.at(worst, np.repeat(np.arange(len(counts)), counts), force_error.max(-1, initial=0.0))
    return {
        "energy MAE": (float(energy_error.mean()), "eV"),
        "force MAE": (float(force_error.mean()), "eV/Å"),
        "force cosine": (float(cosine.mean()), ""),
        "EwT": _percentage(right),
        "EFwT": _percentage(right & (worst < _FORCE)),
    }


def distance_metrics(positions: Pair, cells: Values, counts: NDArray[np.int64]) -> dict[str, tuple[float, str]]:
    """The mean distance, DwT (structures in which it is below 0.5 Å) and ADwT (the mean of that from 0.01 to 0.5 Å).

    Distances are to the nearest image, in each direction of the cell.

    Shapes:
        positions: twice [M, 3] Å, of the M free atoms. cells: [G, 3, 3] Å. counts: [G], free atoms of each.
    """
    graph = np.repeat(np.arange(len(counts)), counts)
    fractional = np.einsum("mi,mij->mj", positions[0] - positions[1], np.linalg.inv(cells)[graph])
    difference = np.einsum("mi,mij->mj", fractional - np.round(fractional), cells[graph])
    total = np.bincount(graph, np.linalg.norm(difference, axis=-1), len(counts))
    mean = total[counts > 0] / counts[counts > 0]
    return {
        "ADwT": _percentage(mean[:, None] < _DISTANCES),
        "DwT": _percentage(mean < 0.5),
        "distance": (float(mean.mean()), "Å"),
    }


def _percentage(right: NDArray[np.bool_]) -> tuple[float, str]:
    return 100 * float(right.mean()), "%"
