"""The work on one item, alone in a process: conformers of a molecule, a relaxed reference, or labelled frames.

Whatever a calculator raises becomes a failure with its reason; the numbers depend on the item and the settings alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from geoeq.data.molecules.conformers import conformers, parse_smiles
from geoeq.errors import GeoeqError
from geoeq.factory.labels import label
from geoeq.factory.methods import Method
from geoeq.factory.sampling import MINIMUM, RELAXED, dynamics, rattled, relaxation, vibrations
from geoeq.factory.settings import Settings, seed_of
from geoeq.factory.starts import Start, spin_fault
from geoeq.factory.task_results import Failure, Result

__all__ = ["frames_of", "run_item", "starts_of"]

#: What a start gives: what is being done, and the atoms with a calculator.
_Frames = Iterator[tuple[str, Atoms]]


def run_item(item: Mapping[str, Any], settings: Settings, method: Method) -> Result:
    """Work on one item.

    Args:
        item: "smiles", or "start" with the file and the place of a start, and "reference" where its relaxation is all
            that is wanted.
        settings: of the set.
        method: that of the settings.
    """
    if "smiles" in item:
        return starts_of(item["smiles"], settings)
    start = Start.from_dict(Result.read(Path(item["start"])).starts[item["place"]])
    return _reference(start, settings, method) if item.get("reference") else frames_of(start, settings, method)


def starts_of(smiles: str, settings: Settings) -> Result:
    """The conformers of a molecule."""
    try:
        molecule, known = parse_smiles(smiles)
        found = conformers(molecule, seed_of(settings.seed, "conformers", known.name), settings.conformers)
    except (GeoeqError, RuntimeError, ValueError) as error:
        return Result(failures=[Failure(smiles, -1, "conformers", _reason(error))])
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    starts = [
        Start(known.group, known.name, place, Atoms(numbers, positions), known.charge, known.multiplicity)
        for place, positions in enumerate(found)
    ]
    if not starts:
        return Result(failures=[Failure(smiles, -1, "conformers", "RDKit finds no conformer of it")])
    fault = spin_fault(starts[0].atoms, known.charge, known.multiplicity)
    if fault is not None:
        return Result(failures=[Failure(smiles, -1, "spin", fault)])
    return Result(starts=[start.to_dict() for start in starts])


def frames_of(start: Start, settings: Settings, method: Method) -> Result:
    """The start and what is sampled from it, labelled; of an adsorbate without sampling, its relaxation."""
    frames: list[dict[str, Any]] = []
    failures: list[Failure] = []
    step = "start"
    fields = [name for name in method.fields if name != "dipole" or not start.atoms.pbc.any()]
    along = start.reference is not None and not settings.samples
    try:
        for step, atoms in _relaxed(start, method) if along else _sampled(start, settings, method):
            try:
                found = label(atoms, fields, settings.max_force)
            except ValueError as error:
                failures.append(Failure(start.name, start.number, step, _reason(error)))
                continue
            frames.append({"positions": atoms.positions.copy(), **found})
    except Exception as error:  # calculators raise what they like
        failures.append(Failure(start.name, start.number, f"after {step}", _reason(error)))
        if along:
            frames = []  # nothing is known of where it would have relaxed to
    arrays = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]} if frames else {}
    if frames and start.reference is not None:
        arrays["adsorption_energy"] = arrays["energy"] - start.reference
    if frames and along:
        last = {"relaxed_energy": "adsorption_energy", "relaxed_positions": "positions"}
        arrays |= {name: np.repeat(arrays[of][-1:], len(frames), axis=0) for name, of in last.items()}
    return Result(start=start.to_dict() if frames else None, frames=arrays, failures=failures)


def _relaxed(start: Start, method: Method) -> _Frames:
    atoms = _ready(start, method)
    for step, moved in enumerate(relaxation(atoms, RELAXED)):
        yield f"relaxation, step {step}", moved


def _sampled(start: Start, settings: Settings, method: Method) -> _Frames:
    first = _ready(start, method)
    if settings.relax or settings.modes is not None or start.reference is not None:
        for _ in relaxation(first, RELAXED if settings.modes is None else MINIMUM):
            pass
    yield "start", first
    name = (start.name, start.number)
    if settings.md is not None:
        atoms = _copy(first)
        for place, frame in enumerate(dynamics(atoms, settings.md, _generator(settings.seed, "md", *name))):
            yield f"md, frame {place}", frame
    if settings.rattle is not None:
        for place, frame in enumerate(rattled(first, settings.rattle, _generator(settings.seed, "rattle", *name))):
            yield f"rattle, frame {place}", _with(frame, first)
    if settings.modes is not None:
        for place, frame in enumerate(vibrations(first, settings.modes, _generator(settings.seed, "modes", *name))):
            yield f"modes, frame {place}", _with(frame, first)


def _reference(start: Start, settings: Settings, method: Method) -> Result:
    """The relaxed start with its energy, as its ``reference``."""
    try:
        atoms = _ready(start, method)
        for _ in relaxation(atoms, RELAXED):
            pass
        energy = float(label(atoms, method.fields, settings.max_force)["energy"])
    except Exception as error:  # calculators raise what they like
        return Result(failures=[Failure(start.name, start.number, "reference", _reason(error))])
    return Result(starts=[replace(start, atoms=_bare(atoms), reference=energy).to_dict()])


def _ready(start: Start, method: Method) -> Atoms:
    atoms: Atoms = start.atoms.copy()
    atoms.calc = method.make(start.charge, start.multiplicity)
    return atoms


def _copy(atoms: Atoms) -> Atoms:
    return _with(atoms.copy(), atoms)


def _with(atoms: Atoms, other: Atoms) -> Atoms:
    """``atoms`` with the calculator of another."""
    atoms.calc = other.calc
    return atoms


def _bare(atoms: Atoms) -> Atoms:
    found: Atoms = atoms.copy()
    found.calc = None
    return found


def _generator(*what: object) -> np.random.Generator:
    return np.random.default_rng(seed_of(*what))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, GeoeqError) and text else f"{type(error).__name__}: {text}"
