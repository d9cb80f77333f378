"""Compute one item in a worker process: conformers of a molecule, a relaxed reference, or labelled frames.

Any error of a calculator becomes a failure with its reason. The numbers depend only on the item and the settings.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from geoeq.data.molecules.conformers import conformers, parse_smiles, to_atoms
from geoeq.errors import GeoeqError
from geoeq.factory.methods import Method, find_method
from geoeq.factory.sampling import MINIMUM, RELAXED, dynamics, rattled, relaxation, vibrations
from geoeq.factory.settings import Settings, seed_of
from geoeq.factory.starts import Start, spin_fault
from geoeq.factory.task_results import Failure, Result

__all__ = ["label", "run_item", "sample_frames", "start_working", "starts_of"]

#: Frames sampled from a start: the sampling step in words, and the atoms with a calculator.
_Frames = Iterator[tuple[str, Atoms]]


@contextmanager
def start_working(setup: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield the function that computes an item in a worker and writes its result."""
    warnings.simplefilter("ignore")
    settings = Settings.from_json(setup["settings"])
    method = find_method(settings.method, settings.arguments)
    yield lambda item: run_item(item, settings, method).write(Path(item["output"]))


def run_item(item: Mapping[str, Any], settings: Settings, method: Method) -> Result:
    """Compute one item.

    Args:
        item: "smiles" of a molecule, or "start", a file of starts, and the "index" of one of them; with "reference" it
            is only relaxed.
        settings: settings of the data set.
        method: method of the settings.
    """
    if "smiles" in item:
        return starts_of(item["smiles"], settings)
    start = Start.from_dict(Result.read(Path(item["start"])).starts[item["index"]])
    return _reference(start, settings, method) if item.get("reference") else sample_frames(start, settings, method)


def starts_of(smiles: str, settings: Settings) -> Result:
    """Return the conformers of a molecule."""
    try:
        molecule, known = parse_smiles(smiles)
        geometries = conformers(molecule, seed_of(settings.seed, "conformers", known.name), settings.conformers)
    except (GeoeqError, RuntimeError, ValueError) as error:
        return Result(failures=[Failure(smiles, -1, "conformers", _reason(error))])
    starts = [
        Start(known.group, known.name, index, to_atoms(molecule, positions), known.charge, known.multiplicity)
        for index, positions in enumerate(geometries)
    ]
    if not starts:
        return Result(failures=[Failure(smiles, -1, "conformers", "RDKit finds no conformer of it")])
    fault = spin_fault(starts[0].atoms, known.charge, known.multiplicity)
    if fault is not None:
        return Result(failures=[Failure(smiles, -1, "spin", fault)])
    return Result(starts=[start.to_dict() for start in starts])


def sample_frames(start: Start, settings: Settings, method: Method) -> Result:
    """Label a start and the frames sampled from it, or the relaxation of an adsorbate if nothing is sampled."""
    frames: list[dict[str, Any]] = []
    failures: list[Failure] = []
    step = "start"
    fields = [name for name in method.fields if name != "dipole" or not start.atoms.pbc.any()]
    is_trajectory = start.reference is not None and not settings.samples
    try:
        for step, atoms in _relaxed(start, method) if is_trajectory else _sampled(start, settings, method):
            try:
                labels = label(atoms, fields, settings.max_force)
            except ValueError as error:
                failures.append(Failure(start.name, start.number, step, _reason(error)))
                continue
            frames.append({"positions": atoms.positions.copy(), **labels})
    except Exception as error:  # calculators may raise anything
        failures.append(Failure(start.name, start.number, f"after {step}", _reason(error)))
        if is_trajectory:
            frames = []  # the relaxed structure is not known
    arrays = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]} if frames else {}
    if frames and start.reference is not None:
        arrays["adsorption_energy"] = arrays["energy"] - start.reference
    if frames and is_trajectory:
        last = {"relaxed_energy": "adsorption_energy", "relaxed_positions": "positions"}
        arrays |= {name: np.repeat(arrays[of][-1:], len(frames), axis=0) for name, of in last.items()}
    return Result(start=start.to_dict() if frames else None, frames=arrays, failures=failures)


def label(atoms: Atoms, fields: Sequence[str], max_force: float) -> dict[str, Any]:
    """Compute the values of ``fields`` in ASE's units, which are those of ``geoeq.fields``.

    Forces are those of the method, on constrained atoms too.

    Args:
        atoms: atoms with a calculator.
        fields: quantities that the calculator computes.
        max_force: largest force on an atom that is accepted, eV/Å.

    Raises:
        ValueError: a value is not finite, or a force is too large.
    """
    values: dict[str, Any] = {}
    for name in fields:
        if name == "energy":
            values[name] = np.float64(atoms.get_potential_energy())
        elif name == "forces":
            values[name] = np.array(atoms.get_forces(apply_constraint=False), dtype=np.float64)
        else:
            values[name] = np.array(atoms.calc.get_property(name, atoms), dtype=np.float64)
        if not np.isfinite(values[name]).all():
            raise ValueError(f"'{name}' is not finite")
    largest = float(np.max(np.linalg.norm(values["forces"], axis=1)))
    if largest > max_force:
        raise ValueError(f"a force of {largest:.3g} eV/Å is above {max_force:g} eV/Å")
    return values


def _relaxed(start: Start, method: Method) -> _Frames:
    atoms = _with_calculator(start, method)
    for step, moved in enumerate(relaxation(atoms, RELAXED)):
        yield f"relaxation, step {step}", moved


def _sampled(start: Start, settings: Settings, method: Method) -> _Frames:
    first = _with_calculator(start, method)
    if settings.relax or settings.modes is not None or start.reference is not None:
        for _ in relaxation(first, RELAXED if settings.modes is None else MINIMUM):
            pass
    yield "start", first
    name = (start.name, start.number)
    if settings.md is not None:
        atoms = first.copy()
        atoms.calc = first.calc
        for index, frame in enumerate(dynamics(atoms, settings.md, _generator(settings.seed, "md", *name))):
            yield f"md, frame {index}", frame
    if settings.rattle is not None:
        for index, frame in enumerate(rattled(first, settings.rattle, _generator(settings.seed, "rattle", *name))):
            frame.calc = first.calc
            yield f"rattle, frame {index}", frame
    if settings.modes is not None:
        for index, frame in enumerate(vibrations(first, settings.modes, _generator(settings.seed, "modes", *name))):
            frame.calc = first.calc
            yield f"modes, frame {index}", frame


def _reference(start: Start, settings: Settings, method: Method) -> Result:
    """Relax a start, and store its energy as its ``reference``."""
    try:
        atoms = _with_calculator(start, method)
        for _ in relaxation(atoms, RELAXED):
            pass
        energy = float(label(atoms, method.fields, settings.max_force)["energy"])
    except Exception as error:  # calculators may raise anything
        return Result(failures=[Failure(start.name, start.number, "reference", _reason(error))])
    relaxed = atoms.copy()
    relaxed.calc = None
    return Result(starts=[replace(start, atoms=relaxed, reference=energy).to_dict()])


def _with_calculator(start: Start, method: Method) -> Atoms:
    atoms: Atoms = start.atoms.copy()
    atoms.calc = method.make(start.charge, start.multiplicity)
    return atoms


def _generator(*what: object) -> np.random.Generator:
    return np.random.default_rng(seed_of(*what))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, GeoeqError) and text else f"{type(error).__name__}: {text}"
