"""Select structures worth labelling: uncertain ones that differ from each other (``geoeq sample``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from ase import Atoms
from ase.io.extxyz import write_xyz
from numpy.typing import NDArray
from torch import nn

from geoeq.data.molecules.net_charge import net_charge
from geoeq.data.structures import Structure, read_structures
from geoeq.errors import GeoeqError, InputError
from geoeq.fields import uncertainty_name
from geoeq.files import atomic_write
from geoeq.models import Ensemble, Forces, LastLayer, Model
from geoeq.models.checkpoint import load_checkpoint
from geoeq.trust import Trust
from geoeq.uncertainty.calibration_run import uncertain_folder
from geoeq.uncertainty.deduplicate import batches, fingerprints, first_of_each
from geoeq.units import counted

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["farthest_points", "sample", "select"]

Values = NDArray[np.float64]

#: Default size of the pool of uncertain frames, as a multiple of the number of selected ones.
_POOL = 5


def sample(
    run: str | Path,
    files: Sequence[str | Path],
    count: int,
    output: str | Path,
    console: Console,
    *,
    known: Sequence[str | Path] = (),
    pool: int | None = None,
    least: float = 0.0,
    trust: Trust = False,
) -> list[Atoms]:
    """Select frames and write them, without labels, as extended XYZ.

    Duplicates (``geoeq.uncertainty.deduplicate``) and frames contained in the files of ``known`` are dropped. Among the
    frames with the most uncertain energy per atom, the first selected is the most uncertain one, and each further one
    is the farthest from all before it in the features of the last layer per atom (for an ensemble without such a layer,
    in invariant fingerprints). The ``info`` of each selected frame holds its estimates, source file and frame index.

    Args:
        run: folder of a calibrated run, or a folder written by ``geoeq calibrate``.
        files: trajectories or other structure files.
        count: largest number of frames to select.
        output: file to write, with the suffix .xyz or .extxyz.
        console: console for the summary.
        known: structure files whose frames are not selected again, such as the training set.
        pool: number of most uncertain frames to select from; by default five times the count.
        least: smallest uncertainty in eV/atom; frames below it are dropped.
        trust: modules outside geoeq whose classes the checkpoint may name, as for ``load_checkpoint``.

    Returns:
        The selected frames, in the order of selection.

    Raises:
        CheckpointError: a checkpoint cannot be read, or was calibrated for another model.
        DataError: a file cannot be read.
        InputError: the model has no uncertainty of the energy, no frame is left, or a number is invalid.
    """
    run = Path(run)
    output = Path(output)
    if output.suffix not in (".xyz", ".extxyz"):
        raise InputError(f"'{output.name}': structures are written as .xyz (extended).")
    if count < 1:
        raise InputError(f"--count {count}: select at least one structure.")
    model, _ = load_checkpoint(uncertain_folder(run, trust=trust), trust=trust)
    if uncertainty_name("energy") not in model.fields:
        raise InputError(f"{model.title} has no uncertainty of the energy, by which frames are selected.")
    frames = [frame for file in files for frame in read_structures(file)]
    old = [frame.atoms for file in known for frame in read_structures(file)]
    distinct = first_of_each([*old, *(frame.atoms for frame in frames)])
    candidates = [frames[index] for index in distinct[distinct >= len(old)] - len(old)]
    if not candidates:
        raise InputError(f"All of the {len(frames)} frames are already in the known files.")
    outputs, features = _evaluate(model.to("cuda" if torch.cuda.is_available() else "cpu"), candidates)
    sizes = np.array([len(frame.atoms) for frame in candidates])
    per_atom = outputs[uncertainty_name("energy")] / sizes
    uncertain = np.flatnonzero(per_atom >= least)
    if len(uncertain) == 0:
        raise InputError(
            f"The model is certain of all frames: the largest uncertainty is {per_atom.max():.3g} eV/atom."
        )
    order = select(per_atom[uncertain], features[uncertain], min(count, len(uncertain)), pool or _POOL * count)
    selected = []
    for index in uncertain[order]:
        estimates = {name: float(value[index]) for name, value in outputs.items()}
        selected.append(_unlabelled(candidates[int(index)], estimates))
    with atomic_write(output) as temporary, temporary.open("w", encoding="utf-8") as text:
        write_xyz(text, selected)
    in_mev, chosen = 1000 * per_atom, 1000 * per_atom[uncertain[order]]
    console.print(
        f"{counted(len(frames), 'frame')}, {len(candidates)} of them distinct and new, with an uncertainty of "
        f"{np.median(in_mev):.3g} meV/atom (median) and {in_mev.max():.3g} meV/atom (maximum). Wrote "
        f"{counted(len(selected), 'frame')} with {chosen.min():.3g} to {chosen.max():.3g} meV/atom to '{output}'.",
        highlight=False,
        soft_wrap=True,
    )
    return selected


def select(uncertainty: Values, features: Values, count: int, pool: int) -> NDArray[np.int64]:
    """Select the most uncertain structure, then repeatedly the one farthest from all selected, among uncertain ones.

    Args:
        uncertainty: uncertainty of each structure.
        features: features of each structure; each column is divided by its standard deviation.
        count: number of structures to select; fewer if there are fewer.
        pool: number of most uncertain structures to select from.

    Shapes:
        uncertainty: [S]. features: [S, W]. Returns up to [count] indices in the order of selection.

    Raises:
        InputError: a number is not positive, or an uncertainty is not finite.
    """
    if count < 1 or pool < count:
        raise InputError(f"{count} structures cannot be selected from the {pool} most uncertain ones.")
    if not np.isfinite(uncertainty).all():
        index = int(np.flatnonzero(~np.isfinite(uncertainty))[0])
        raise InputError(f"The uncertainty of structure {index} is not finite.")
    order = np.argsort(-uncertainty, kind="stable")[:pool]
    spread = features.std(0)
    varies = spread > 1e-9 * np.abs(features).max(0)  # other columns vary only by rounding
    scaled = features[order] / np.where(varies, spread, np.inf)
    return order[farthest_points(scaled, min(count, len(order)))]


def farthest_points(points: Values, count: int) -> NDArray[np.int64]:
    """Select the first point, then repeatedly the one farthest from its nearest selected point.

    Shapes:
        points: [S, W]. Returns [count].
    """
    chosen = [0]
    nearest = np.linalg.norm(points - points[0], axis=1)
    nearest[0] = -1.0
    while len(chosen) < count:
        index = int(nearest.argmax())
        chosen.append(index)
        nearest = np.minimum(nearest, np.linalg.norm(points - points[index], axis=1))
        nearest[chosen] = -1.0  # never twice, even if other points coincide with it
    return np.array(chosen, dtype=np.int64)


def _unlabelled(frame: Structure, estimates: dict[str, float]) -> Atoms:
    """Return the structure without energies or forces that could be mistaken for labels."""
    atoms = Atoms(frame.atoms.numbers, frame.atoms.positions, cell=frame.atoms.cell, pbc=frame.atoms.pbc)
    file, _, number = frame.where.rpartition(", frame ")
    charge = net_charge(frame.atoms.info)
    charged = {} if charge is None else {"total_charge": charge}
    atoms.info = {**charged, **estimates, "source": file, "source_frame": int(number)}
    return atoms


def _evaluate(model: Model, frames: Sequence[Structure]) -> tuple[dict[str, Values], Values]:
    """Return uncertainties of energies and forces (largest per structure) [S], and features per atom [S, W]."""
    parameter = next(model.parameters())
    last_layer = _last_layer(model)
    energy, forces = uncertainty_name("energy"), uncertainty_name("forces")
    estimates: dict[str, list[Values]] = {}
    rows = []
    for batch in batches([frame.atoms for frame in frames], parameter.dtype):
        sizes = batch.ptr.diff()
        if last_layer is None:
            rows.append(fingerprints(batch)[0])
        batch = batch.to(parameter.device)
        with torch.no_grad():
            outputs = model(batch)
            if last_layer is not None:
                features = last_layer.features(batch)[1].cpu()
                rows.append((features / sizes.unsqueeze(1)).numpy())
        estimates.setdefault(energy, []).append(outputs[energy].double().cpu().numpy())
        if forces in outputs:
            largest = [float(part.max()) for part in outputs[forces].split(sizes.tolist())]
            estimates.setdefault(f"largest_{forces}", []).append(np.array(largest))
    return {name: np.concatenate(parts) for name, parts in estimates.items()}, np.concatenate(rows)


def _last_layer(model: Model) -> LastLayer | None:
    """Return a reader of last-layer features (of the first member of an ensemble); None if there is no such layer."""
    inner = _without_forces(model)
    if isinstance(inner, LastLayer):
        return inner
    first = _without_forces(inner.models[0]) if isinstance(inner, Ensemble) else inner
    try:
        return LastLayer(first)  # type: ignore[arg-type]
    except GeoeqError:
        return None


def _without_forces(model: nn.Module) -> nn.Module:
    return model.model if isinstance(model, Forces) else model
