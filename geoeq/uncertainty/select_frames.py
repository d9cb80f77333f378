"""The body of ``geoeq sample``: the frames of trajectories that a model should learn from next."""

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

from geoeq.data.structures import Structure, read_structures
from geoeq.errors import GeoeqError, InputError
from geoeq.fields import uncertainty_name
from geoeq.files import atomic_write
from geoeq.models import Ensemble, Forces, LastLayer, Model
from geoeq.models.checkpoint import load_checkpoint
from geoeq.uncertainty.deduplicate import batches, fingerprints, first_of_each
from geoeq.uncertainty.selection import select
from geoeq.uncertainty.uncertain_model import uncertain_folder

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["sample"]

Values = NDArray[np.float64]

#: Chosen are the most different ones among so many times as many of the most uncertain.
_POOL = 5


def sample(
    run: Path,
    files: Sequence[Path],
    count: int,
    output: Path,
    console: Console,
    *,
    known: Sequence[Path] = (),
    pool: int | None = None,
    least: float = 0.0,
    trust: bool = False,
) -> list[Atoms]:
    """Choose frames and write them, without labels, as extended XYZ.

    Of frames that are the same (``geoeq.uncertainty.deduplicate``) one counts, and none that is in the files of
    ``known``.
    Among the most uncertain ones (energy, for each atom) the first is the most uncertain, and each further one is the
    farthest from all before it in the features of the last layer, for each atom (in invariant fingerprints where an
    ensemble has no such layer). Each has the estimates, its file and
    its frame in its ``info``.

    Args:
        run: a run that was calibrated, or what ``geoeq calibrate`` wrote.
        files: trajectories, or other files of structures.
        count: how many, at the most.
        output: the file, with the end .xyz or .extxyz.
        console: for what is said.
        known: files of structures that are not to be chosen again, such as the training set.
        pool: among how many of the most uncertain; five times the count if not given.
        least: eV for each atom; frames of which the model is more certain are left out.
        trust: import and run classes that are not part of geoeq, where the checkpoint names any.

    Returns:
        What was written, in the order of choice.

    Raises:
        CheckpointError: a checkpoint cannot be read, or was made of another model.
        DataError: a file cannot be read.
        InputError: the model does not know the uncertainty of its energy, nothing is left to choose from, or a number
            cannot be.
    """
    if output.suffix not in (".xyz", ".extxyz"):
        raise InputError(f"'{output.name}': structures are written as .xyz (extended).")
    if count < 1:
        raise InputError(f"--count {count}: choose one structure or more.")
    model, _ = load_checkpoint(uncertain_folder(run, trust=trust), trust=trust)
    if uncertainty_name("energy") not in model.fields:
        raise InputError(f"{model.title} does not know the uncertainty of an energy, by which frames are chosen.")
    frames = [frame for file in files for frame in read_structures(file)]
    old = [frame.atoms for file in known for frame in read_structures(file)]
    distinct = first_of_each([*old, *(frame.atoms for frame in frames)])
    distinct = distinct[distinct >= len(old)] - len(old)
    kept = [frames[place] for place in distinct]
    if not kept:
        raise InputError(f"All of the {len(frames)} frames are in the files that are known already.")
    outputs, features = _evaluate(model.to("cuda" if torch.cuda.is_available() else "cpu"), kept)
    sizes = np.array([len(frame.atoms) for frame in kept])
    each = outputs[uncertainty_name("energy")] / sizes
    enough = np.flatnonzero(each >= least)
    if len(enough) == 0:
        raise InputError(f"The model is certain of all frames: the largest uncertainty is {each.max():.3g} eV/atom.")
    order = select(each[enough], features[enough], min(count, len(enough)), pool or _POOL * count)
    picks = []
    for place in enough[order]:
        frame = kept[int(place)]
        picks.append(_pick(frame, {name: float(value[place]) for name, value in outputs.items()}))
    with atomic_write(output) as temporary, temporary.open("w", encoding="utf-8") as text:
        write_xyz(text, picks)
    all_of_them, chosen = 1000 * each, 1000 * each[enough[order]]
    console.print(
        f"{len(frames)} frames, {len(kept)} of them distinct and new; uncertainty {np.median(all_of_them):.3g} "
        f"meV/atom in the median, {all_of_them.max():.3g} at most. {len(picks)} are in '{output}', of "
        f"{chosen.min():.3g} to {chosen.max():.3g} meV/atom.",
        highlight=False,
        soft_wrap=True,
    )
    return picks


def _pick(frame: Structure, estimates: dict[str, float]) -> Atoms:
    """The bare structure, to be labelled: no energies or forces that could be taken for labels."""
    atoms = Atoms(frame.atoms.numbers, frame.atoms.positions, cell=frame.atoms.cell, pbc=frame.atoms.pbc)
    file, _, number = frame.where.rpartition(", frame ")
    net_charge = {name: frame.atoms.info[name] for name in ("total_charge",) if name in frame.atoms.info}
    atoms.info = {**net_charge, **estimates, "source": file, "source_frame": int(number)}
    return atoms


def _evaluate(model: Model, frames: Sequence[Structure]) -> tuple[dict[str, Values], Values]:
    """The uncertainty of the energy [S], of forces the largest of a structure, and features for each atom [S, W]."""
    parameter = next(model.parameters())
    reader = _last_layer(model)
    energy, forces = uncertainty_name("energy"), uncertainty_name("forces")
    found: dict[str, list[Values]] = {}
    rows = []
    for batch in batches([frame.atoms for frame in frames], parameter.dtype):
        sizes = batch.ptr.diff()
        if reader is None:
            rows.append(fingerprints(batch)[0])
        batch = batch.to(parameter.device)
        with torch.no_grad():
            outputs = model(batch)
            if reader is not None:
                features = reader.features(batch)[1].cpu()
                rows.append((features / sizes.unsqueeze(1)).numpy())
        found.setdefault(energy, []).append(outputs[energy].double().cpu().numpy())
        if forces in outputs:
            largest = [float(part.max()) for part in outputs[forces].split(sizes.tolist())]
            found.setdefault(f"largest_{forces}", []).append(np.array(largest))
    return {name: np.concatenate(parts) for name, parts in found.items()}, np.concatenate(rows)


def _last_layer(model: Model) -> LastLayer | None:
    """What reads the features of the model, of an ensemble those of its first member; None where none are known."""
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
