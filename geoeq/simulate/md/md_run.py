"""The body of ``geoeq md``: a trained model, a structure and settings become a folder with a trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from ase import Atoms, units

from geoeq.data.structures import read_structures
from geoeq.environment import describe_environment
from geoeq.errors import InputError, SimulationError
from geoeq.files import file_sha256
from geoeq.models.checkpoint import checkpoint_sha256
from geoeq.simulate.calculator import GeoeqCalculator
from geoeq.simulate.md.md_folder import claim_folder
from geoeq.simulate.md.md_report import write_summary
from geoeq.simulate.md.settings import MDSettings
from geoeq.simulate.md.simulation import LAST, Outcome, Simulation, StopRule
from geoeq.simulate.md.summary import DRIFT, with_spread
from geoeq.simulate.md.thermo import SPEED

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["run_md"]


def run_md(
    model: Path,
    structure: Path,
    settings: MDSettings,
    console: Console,
    *,
    folder: Path | None = None,
    frame: int | None = None,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    skin: float = 0.5,
    again: bool = False,
    stop: StopRule | None = None,
    trust: bool = False,
) -> Outcome:
    """Simulate, going on where a killed run of the same simulation stopped.

    The folder then holds settings.json, trajectory.extxyz, thermo.csv, last.extxyz, state.pt, results.json and
    summary.png.

    Args:
        model: a run of ``geoeq train``, or a checkpoint.
        structure: a file that ASE reads.
        settings: the simulation.
        console: for the progress and the summary.
        folder: by default ``runs/md-STRUCTURE-ENSEMBLE``.
        frame: which structure of the file, counted from 0 (from the end where negative); None where it has one.
        device, dtype, skin, trust: see ``GeoeqCalculator``.
        again: throw away what an earlier simulation left in the folder.
        stop: asked after each step.

    Raises:
        GeoeqError: something is not found or cannot be simulated, or it ended as ``Simulation.run`` says.
    """
    from geoeq.simulate.md.md_progress import MDProgress

    folder = folder or Path("runs") / f"md-{structure.stem}-{settings.ensemble}"
    atoms, frame = _structure(structure, frame)
    calculator = GeoeqCalculator(model, device, dtype=dtype, skin=skin, trust=trust)
    _check(calculator, settings)
    used = {
        "sha256": checkpoint_sha256(model),
        "dtype": str(next(calculator.model.parameters()).dtype).removeprefix("torch."),
        "device": calculator.device.type,
    }
    read_from = {"sha256": file_sha256(structure), "frame": frame}
    told = {"path": str(model), "title": calculator.model.title, "conservative": calculator.conservative}
    description = {
        "settings": settings.to_dict(),
        "model": {**told, "skin [Å]": skin, **used},
        "structure": {"path": str(structure), "formula": str(atoms.symbols), "atoms": len(atoms), **read_from},
        "environment": describe_environment(),
    }
    decides = {"settings": settings.decides(), "model": used, "structure": read_from}
    claim_folder(folder, description, decides, again=again)
    atoms.calc = calculator

    title = f"{calculator.model.title}, {atoms.get_chemical_formula()}, {_words(settings)}"
    simulation = Simulation(atoms, settings, folder)
    _announce(console, simulation, calculator, title)
    try:
        with MDProgress(console, settings, simulation.step) as progress:
            outcome = simulation.run(stop=stop, report=progress)
    except SimulationError as error:
        write_summary(simulation, title, stopped=str(error))
        raise
    if outcome.signal is None:
        found = write_summary(simulation, title, stopped=outcome.stopped)
        _tell(console, simulation, found, outcome.stopped)
    return outcome


def _structure(file: Path, frame: int | None) -> tuple[Atoms, int]:
    frames = read_structures(file)
    if frame is None and len(frames) > 1:
        raise InputError(f"{file} has {len(frames)} structures: say which with --frame, from 0 (or -1, the last).")
    if frame is not None and not -len(frames) <= frame < len(frames):
        raise InputError(f"--frame {frame}: {file} has {len(frames)} structures, counted from 0.")
    place = (frame or 0) % len(frames)
    return frames[place].atoms, place


def _check(calculator: GeoeqCalculator, settings: MDSettings) -> None:
    given = calculator.implemented_properties
    if "energy" not in given or "forces" not in given:
        raise InputError(f"The model gives {', '.join(given)}: a simulation needs an energy and forces.")
    if settings.ensemble == "npt" and "stress" not in given:
        why = "its forces are not derivatives of its energy" if not calculator.conservative else "it has no cutoff"
        raise InputError(f"npt needs a stress, and the model gives none, as {why}. Choose nvt.")


def _words(settings: MDSettings) -> str:
    parts: list[str] = [settings.ensemble]
    if settings.ensemble != "nve":
        parts += [f"{settings.temperature:g} K", str(settings.coupling)]
    if settings.pressure is not None:
        parts.append(f"{settings.pressure / units.GPa:g} GPa")
    return ", ".join(parts)


def _announce(console: Console, simulation: Simulation, calculator: GeoeqCalculator, title: str) -> None:
    settings, atoms = simulation.settings, simulation.atoms
    periodic = [name for name, repeats in zip("abc", atoms.pbc) if repeats]
    along = f"periodic along {', '.join(periodic)}" if periodic else "not periodic"
    lines = [
        f"{title}: {len(atoms)} atoms, {along}, for {settings.steps:,} steps of {settings.timestep:g} fs "
        f"({settings.steps * settings.timestep / 1000:g} ps), on {calculator.device.type}, in '{simulation.folder}'."
    ]
    if not calculator.conservative:
        lines.append("Its forces are not derivatives of its energy: the total energy is not conserved.")
    if simulation.velocities is not None:
        lines.append(f"Velocities: {simulation.velocities}.")
    elif simulation.step == settings.steps:
        lines.append("This run is finished; --again starts anew, and more --steps go on.")
    else:
        lines.append(f"Going on after step {simulation.step:,}.")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _tell(console: Console, simulation: Simulation, found: dict[str, Any], stopped: str | None) -> None:
    ending = f"{simulation.step:,} steps are done. Trajectory, log and picture are in '{simulation.folder}'."
    if stopped is not None:
        ending = (
            f"Stopped at step {simulation.step:,}: {stopped}. This frame is '{simulation.folder / LAST}'; trajectory, "
            f"log and picture are in '{simulation.folder}'."
        )
    for line in [*_result_lines(found), ending]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _result_lines(found: dict[str, Any]) -> list[str]:
    """The means, each on a line, with what they are of."""
    lines = ["Means of the second half:"]
    for name, (mean, deviation) in found["means"].items():
        quantity, _, unit = name.rstrip("]").partition(" [")
        lines.append(f"  {quantity:18} {with_spread(mean, deviation)} {unit}")
    if DRIFT in found:
        lines.append(f"  {'drift':18} {found[DRIFT]:.2g} eV/atom/ps")
    if found[SPEED] is not None:
        lines.append(f"  {'speed':18} {found[SPEED]:.4g} ns/day")
    return lines
