"""``geoeq md``: molecular dynamics with a trained model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from geoeq.cli.options import add_output, add_trust, new_console

__all__ = ["add_md", "run_md"]


def add_md(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq md``."""
    parser.epilog = "Example: geoeq md runs/silicon si.xyz --ensemble nvt --temperature 300K --time 100ps"
    add = parser.add_argument
    add(
        "run",
        type=Path,
        help="folder of a training run or checkpoint, such as runs/rmd17-egnn, or published potential, such as 7net-0",
    )
    add(
        "structure", type=Path, help="file with the initial structure, in a format that ASE reads (xyz, cif, traj, ...)"
    )
    add(
        "--ensemble",
        required=True,
        choices=("nve", "nvt", "npt"),
        help="thermodynamic ensemble: constant energy (nve), temperature (nvt), or temperature and pressure (npt)",
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="total number of steps (raise it to extend a finished run)")
    length.add_argument("--time", metavar="TIME", help="total simulated time, such as 10ps, instead of --steps")
    add(
        "--temperature",
        help="temperature of the thermostat and of random initial velocities, such as 300K (required for nvt and npt)",
    )
    add("--timestep", default="0.5fs", metavar="TIME", help="integration time step (default 0.5fs)")
    add(
        "--thermostat",
        choices=("langevin", "bussi", "nose-hoover"),
        help="thermostat (default: langevin for nvt; npt always uses nose-hoover)",
    )
    add("--tau", default="100fs", metavar="TIME", help="relaxation time of the thermostat (default 100fs)")
    add("--pressure", help="external pressure, such as 1bar or 2GPa (required for npt, not allowed otherwise)")
    add("--pressure-tau", default="1ps", metavar="TIME", help="relaxation time of the barostat (default 1ps)")
    add(
        "--barostat",
        choices=("isotropic", "full"),
        help="change of the cell in npt: isotropic scales it, full also changes its shape (default isotropic)",
    )
    add(
        "--velocities",
        choices=("file", "random"),
        help="initial velocities: read from the file, or random (default: file if it contains velocities, else random)",
    )
    add("--seed", type=int, default=0, help="random seed of the initial velocities and the thermostat (default 0)")
    add(
        "--frame",
        type=int,
        metavar="N",
        help="index of the initial structure in the file, counted from 0, -1 for the last "
        "(required if the file has several structures)",
    )
    add("--log-every", type=int, default=10, metavar="STEPS", help="steps between rows of the log (default 10)")
    add(
        "--frame-every",
        type=int,
        default=100,
        metavar="STEPS",
        help="steps between frames of the trajectory (default 100)",
    )
    add(
        "--save-every",
        type=int,
        default=1000,
        metavar="STEPS",
        help="steps between saved states from which the run can be resumed (default 1000)",
    )
    add(
        "--max-temperature",
        help="temperature above which the run stops as unstable, such as 5000K (default: the higher of 10000K and 10 "
        "times --temperature)",
    )
    add(
        "--max-uncertainty",
        metavar="LIMIT",
        help="uncertainty of a calibrated model above which the run stops: of the energy, such as 0.05eV/atom, "
        "or of the force on any atom, such as 0.5eV/Å (default: no limit)",
    )
    add(
        "--device", default="auto", help="device of the model: cpu, cuda, or auto for a GPU if available (default auto)"
    )
    add(
        "--dtype",
        choices=("float32", "float64"),
        help="floating-point type of the model (default: the one that it was trained with)",
    )
    add(
        "--skin",
        default="0.5Å",
        metavar="LENGTH",
        help="Verlet skin, the range of the neighbour list beyond the cutoff; the list is rebuilt once an atom may "
        "have crossed it (default 0.5Å)",
    )
    add_output(parser, "folder for trajectory, log and plots (default runs/md-STRUCTURE-ENSEMBLE)")
    add("--again", action="store_true", help="delete an earlier run in the same folder instead of resuming it")
    add_trust(parser)


def run_md(arguments: argparse.Namespace) -> int:
    """Run molecular dynamics; return 1 if a stopping rule ended it, 128 + number if a signal did."""
    from geoeq.resources import import_extra

    console = new_console()
    import_extra("matplotlib", "plots")
    import torch

    from geoeq.simulate.md.md_run import run_md as simulate
    from geoeq.simulate.md.settings import settings_from_text

    settings, skin = settings_from_text(vars(arguments))
    model, stop = arguments.run, None
    if arguments.max_uncertainty is not None:
        from geoeq.simulate.md.uncertainty_rule import uncertainty_rule
        from geoeq.uncertainty import uncertain_folder

        stop = uncertainty_rule(arguments.max_uncertainty)
        model = uncertain_folder(model, trust=arguments.trust)
    outcome = simulate(
        model,
        arguments.structure,
        settings,
        console,
        folder=arguments.output,
        frame=arguments.frame,
        device=arguments.device,
        dtype=None if arguments.dtype is None else getattr(torch, arguments.dtype),
        skin=skin,
        again=arguments.again,
        stop=stop,
        trust=arguments.trust,
    )
    if outcome.signal is not None:
        sys.stderr.write(f"Ended at step {outcome.step:,}. To resume, run the same command again.\n")
        return 128 + outcome.signal  # the shells' convention
    return 0 if outcome.stopped is None else 1
