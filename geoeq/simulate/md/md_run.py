"""Body of ``geoeq md``: run a simulation from a model, a structure and settings, in a folder that it claims."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ase import Atoms, units

from geoeq.data.structures import read_structures
from geoeq.documents import read_json
from geoeq.environment import describe_environment
from geoeq.errors import InputError, SimulationError
from geoeq.files import file_sha256, remove_stale, write_json
from geoeq.models.checkpoint import checkpoint_sha256
from geoeq.simulate.calculator import GeoeqCalculator
from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.simulation import LAST, LOG, STATE, TRAJECTORY, Outcome, Simulation, StopRule
from geoeq.simulate.md.summary import PICTURE, RESULTS, result_lines, write_summary
from geoeq.trust import Trust
from geoeq.typed import differences

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run_md"]

SETTINGS = "settings.json"


def run_md(
    model: str | Path,
    structure: str | Path,
    settings: MDSettings,
    console: Console,
    *,
    folder: str | Path | None = None,
    frame: int | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    skin: float = 0.5,
    again: bool = False,
    stop: StopRule | None = None,
    trust: Trust = False,
) -> Outcome:
    """Run a simulation, resuming an interrupted run of the same simulation.

    The folder then holds settings.json, trajectory.extxyz, thermo.csv, last.extxyz, state.pt, results.json and
    summary.png.

    Args:
        model: folder of a ``geoeq train`` run, a checkpoint, or name of a published potential that was fetched.
        structure: structure file in a format that ASE reads.
        settings: settings of the simulation.
        console: console for progress and summary.
        folder: output folder; by default ``runs/md-STRUCTURE-ENSEMBLE``.
        frame: index of the structure in the file, from 0 (negative from the end); None if the file has only one.
        device, dtype, skin, trust: see ``GeoeqCalculator``.
        again: whether to discard an earlier simulation in the folder.
        stop: rule called after each step.

    Raises:
        GeoeqError: an input is missing or invalid, or the simulation failed (``Simulation.run``).
    """
    model = Path(model)
    structure = Path(structure)
    folder = None if folder is None else Path(folder)
    from geoeq.simulate.md.md_progress import MDProgress

    folder = folder or Path("runs") / f"md-{structure.stem}-{settings.ensemble}"
    atoms, frame = _read_structure(structure, frame)
    calculator = GeoeqCalculator(model, device, dtype=dtype, skin=skin, trust=trust)
    _check_outputs(calculator, settings)
    precise = {
        "sha256": checkpoint_sha256(model),
        "dtype": str(next(calculator.model.parameters()).dtype).removeprefix("torch."),
        "device": calculator.device.type,
    }
    source = {"sha256": file_sha256(structure), "frame": frame}
    described = {"path": str(model), "title": calculator.model.title, "conservative": calculator.conservative}
    description = {
        "settings": settings.to_dict(),
        "model": {**described, "skin [Å]": skin, **precise},
        "structure": {"path": str(structure), "formula": str(atoms.symbols), "atoms": len(atoms), **source},
        "environment": describe_environment(),
    }
    decides = {"settings": settings.decides(), "model": precise, "structure": source}
    _claim_folder(folder, description, decides, again=again)
    atoms.calc = calculator

    title = f"{calculator.model.title}, {atoms.get_chemical_formula()}, {_conditions(settings)}"
    simulation = Simulation(atoms, settings, folder)
    _print_start(console, simulation, calculator, title)
    try:
        with MDProgress(console, settings, simulation.step) as progress:
            outcome = simulation.run(stop=stop, report=progress)
    except SimulationError as error:
        with contextlib.suppress(OSError):  # the disk may be full
            write_summary(simulation, title, stopped=str(error))
        raise
    if outcome.signal is None:
        results = write_summary(simulation, title, stopped=outcome.stopped)
        _print_end(console, simulation, results, outcome.stopped)
    return outcome


def _read_structure(file: Path, frame: int | None) -> tuple[Atoms, int]:
    frames = read_structures(file)
    if frame is None and len(frames) > 1:
        raise InputError(f"{file} has {len(frames)} structures: select one with --frame, from 0 (or -1, the last).")
    if frame is not None and not -len(frames) <= frame < len(frames):
        raise InputError(f"--frame {frame}: {file} has {len(frames)} structures, counted from 0.")
    index = (frame or 0) % len(frames)
    return frames[index].atoms, index


def _check_outputs(calculator: GeoeqCalculator, settings: MDSettings) -> None:
    offered = calculator.implemented_properties
    if "energy" not in offered or "forces" not in offered:
        raise InputError(f"The model predicts {', '.join(offered)}; a simulation needs an energy and forces.")
    if settings.ensemble == "npt" and "stress" not in offered:
        why = "its forces are not derivatives of its energy" if not calculator.conservative else "it has no cutoff"
        raise InputError(f"npt needs a stress, and the model has none, because {why}. Choose nvt.")


def _claim_folder(folder: Path, description: dict[str, Any], decides: dict[str, Any], *, again: bool) -> None:
    """Write ``settings.json`` into a folder that is new, empty, or holds the same simulation.

    Args:
        folder: output folder, which need not exist.
        description: content of ``settings.json``.
        decides: the parts of it that must be equal to resume a simulation.
        again: whether to discard an earlier simulation.

    Raises:
        InputError: the folder holds another simulation, or unrelated files. The message states the differences.
    """
    remove_stale(folder)
    file = folder / SETTINGS
    if file.is_file() and (again or not (folder / STATE).is_file()):  # without a state no step was completed
        for name in (SETTINGS, RESULTS, PICTURE, LAST, LOG, STATE, TRAJECTORY):
            (folder / name).unlink(missing_ok=True)
    elif file.is_file():
        changes = _changes(_read_json(file), decides)
        if changes:
            raise InputError(
                f"The folder '{folder}' holds another simulation ({'; '.join(changes[:3])}). Choose another folder "
                "with --output FOLDER, or discard that simulation with --again."
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"The folder '{folder}' holds other files. Choose another one with --output FOLDER.")
    write_json(file, description)


def _changes(old: dict[str, Any], decides: dict[str, Any]) -> list[str]:
    changes = []
    for part, values in decides.items():
        before = old.get(part)
        changes += differences(before if isinstance(before, dict) else {}, values, set(values), f"{part}: ")
    return changes


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file, InputError)
    except InputError as error:
        raise InputError(f"{file} is truncated or altered. Delete its folder to start again.") from error
    return content if isinstance(content, dict) else {}


def _conditions(settings: MDSettings) -> str:
    parts: list[str] = [settings.ensemble]
    if settings.ensemble != "nve":
        parts += [f"{settings.temperature:g} K", str(settings.coupling)]
    if settings.pressure is not None:
        parts.append(f"{settings.pressure / units.GPa:g} GPa")
    return ", ".join(parts)


def _print_start(console: Console, simulation: Simulation, calculator: GeoeqCalculator, title: str) -> None:
    settings, atoms = simulation.settings, simulation.atoms
    periodic = [name for name, repeats in zip("abc", atoms.pbc) if repeats]
    along = f"periodic along {', '.join(periodic)}" if periodic else "not periodic"
    lines = [
        f"{title}: {len(atoms)} atoms, {along}, {settings.steps:,} steps of {settings.timestep:g} fs "
        f"({settings.steps * settings.timestep / 1000:g} ps), on {calculator.device.type}, in '{simulation.folder}'."
    ]
    if not calculator.conservative:
        lines.append("The forces are not derivatives of the energy: the total energy is not conserved.")
    if simulation.velocities is not None:
        lines.append(f"Velocities: {simulation.velocities}.")
    elif simulation.step == settings.steps:
        lines.append("This run is finished; --again starts over, and a larger --steps extends it.")
    else:
        lines.append(f"Resuming after step {simulation.step:,}.")
    _print(console, lines)


def _print_end(console: Console, simulation: Simulation, results: dict[str, Any], stopped: str | None) -> None:
    ending = f"Completed {simulation.step:,} steps. Trajectory, log and plot are in '{simulation.folder}'."
    if stopped is not None:
        ending = (
            f"Stopped at step {simulation.step:,}: {stopped}. This frame is '{simulation.folder / LAST}'; trajectory, "
            f"log and plot are in '{simulation.folder}'."
        )
    _print(console, [*result_lines(results), ending])


def _print(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
