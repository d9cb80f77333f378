"""Metrics of the Open Catalyst tasks, on free atoms.

Source:
    Chanussot et al., ACS Catalysis 11, 6059 (2021), arXiv:2010.09990; the thresholds, and the comparison of each
    force component separately, as in their program (``evaluator.py`` of ocp).
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

#: Energies that belong to forces; the first one with predictions is used.
_ENERGIES = ("energy", "total_energy", "adsorption_energy")


def catalyst_metrics(
    dataset: Dataset, indices: NDArray[np.int64], predictions: Mapping[str, Pair]
) -> dict[str, tuple[float, str]]:
    """Return all metrics of the predicted fields, name -> value and unit; none if the data have no fixed atoms.

    Args:
        dataset: data set.
        indices: indices of its structures, [G].
        predictions: field -> (prediction, truth), in eV, eV/Å and Å, of free atoms only.
    """
    free = dataset.free_atoms(indices)
    if free is None:
        return {}
    atoms = np.diff(dataset.ptr)[indices]
    counts = np.add.reduceat(free.astype(np.int64), np.concatenate([[0], np.cumsum(atoms)[:-1]]))
    metrics: dict[str, tuple[float, str]] = {}
    energy = next((predictions[name] for name in _ENERGIES if name in predictions), None)
    if energy is not None and "forces" in predictions:
        metrics |= force_metrics(energy, predictions["forces"], counts)
    if "relaxed_energy" in predictions:
        prediction, truth = predictions["relaxed_energy"]
        metrics["energy MAE"] = float(np.abs(prediction - truth).mean()), "eV"
        metrics["EwT"] = _percentage(np.abs(prediction - truth) < _ENERGY)
    if "relaxed_positions" in predictions:
        metrics |= distance_metrics(predictions["relaxed_positions"], dataset.cells(indices), counts)
    return metrics


def force_metrics(energy: Pair, forces: Pair, counts: NDArray[np.int64]) -> dict[str, tuple[float, str]]:
    """Return energy and force MAE, mean cosine of the forces, EwT and EFwT.

    EwT is the percentage of structures with an energy error below 0.02 eV, EFwT of those whose force components also
    have errors below 0.03 eV/Å.

    Shapes:
        energy: pair of [G], eV. forces: pair of [M, 3] of the M free atoms, eV/Å. counts: [G], number of free atoms.
    """
    energy_error, force_error = np.abs(energy[0] - energy[1]), np.abs(forces[0] - forces[1])
    lengths = np.linalg.norm(forces[0], axis=-1) * np.linalg.norm(forces[1], axis=-1)
    cosine = (forces[0] * forces[1]).sum(-1) / np.maximum(lengths, 1e-16)
    accurate = energy_error < _ENERGY
    worst = np.zeros(len(counts))
    np.maximum.at(worst, np.repeat(np.arange(len(counts)), counts), force_error.max(-1, initial=0.0))
    return {
        "energy MAE": (float(energy_error.mean()), "eV"),
        "force MAE": (float(force_error.mean()), "eV/Å"),
        "force cosine": (float(cosine.mean()), ""),
        "EwT": _percentage(accurate),
        "EFwT": _percentage(accurate & (worst < _FORCE)),
    }


def distance_metrics(positions: Pair, cells: Values, counts: NDArray[np.int64]) -> dict[str, tuple[float, str]]:
    """Return the mean distance, DwT (structures with less than 0.5 Å) and ADwT (mean of DwT from 0.01 to 0.5 Å).

    Distances are to the nearest image, in each direction of the cell.

    Shapes:
        positions: pair of [M, 3] of the M free atoms, Å. cells: [G, 3, 3], Å. counts: [G], number of free atoms.
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


def _percentage(mask: NDArray[np.bool_]) -> tuple[float, str]:
    return 100 * float(mask.mean()), "%"
