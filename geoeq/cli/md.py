"""The command ``geoeq md``: its options, and what it calls."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_parser", "run"]


def add_parser(commands: Any) -> None:
    """Add the command.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    md = commands.add_parser("md", help="molecular dynamics with a trained model, or go on with a run that was killed")
    md.add_argument("run", type=Path, help="the folder of a run or checkpoint, such as runs/rmd17-egnn")
    md.add_argument("structure", type=Path, help="a file that ASE reads: xyz, cif, traj ...")
    md.add_argument("--ensemble", required=True, choices=("nve", "nvt", "npt"), help="what is kept constant")
    length = md.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="of the whole run; more than were done go on with it")
    length.add_argument("--time", metavar="TIME", help="in place of the steps: 10ps")
    md.add_argument("--temperature", help="of the thermostat, and of random velocities: 300K")
    md.add_argument("--timestep", default="0.5fs", metavar="TIME", help="0.5fs if not given")
    md.add_argument("--thermostat", choices=("langevin", "bussi", "nose-hoover"), help="nvt: langevin if not given")
    md.add_argument("--tau", default="100fs", metavar="TIME", help="in which the thermostat acts (100fs)")
    md.add_argument("--pressure", help="for npt: 1bar, 2GPa")
    md.add_argument("--pressure-tau", default="1ps", metavar="TIME", help="in which the barostat acts (1ps)")
    md.add_argument("--barostat", choices=("isotropic", "full"), help="full: the cell changes its shape, too")
    md.add_argument("--velocities", choices=("file", "random"), help="those of the file, if it has some, if not given")
    md.add_argument("--seed", type=int, default=0, help="of velocities and thermostat (0)")
    md.add_argument("--frame", type=int, metavar="N", help="which structure of the file, from 0 (-1: the last)")
    md.add_argument("--log-every", type=int, default=10, metavar="STEPS", help="between rows of the log (10)")
    md.add_argument("--frame-every", type=int, default=100, metavar="STEPS", help="between frames (100)")
    md.add_argument("--save-every", type=int, default=1000, metavar="STEPS", help="between states to go on from (1000)")
    md.add_argument("--max-temperature", help="where the run stops; 10000K or ten times --temperature if not given")
    md.add_argument("--max-uncertainty", metavar="LIMIT", help="stop above 0.05eV/atom, or 0.5eV/Å on an atom")
    md.add_argument("--device", default="auto", help="auto (a GPU where there is one), cpu, cuda")
    md.add_argument("--dtype", choices=("float32", "float64"), help="of the model; as it was trained if not given")
    md.add_argument("--skin", default="0.5Å", metavar="LENGTH", help="of the neighbour list (0.5Å)")
    md.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="runs/md-STRUCTURE-ENSEMBLE if not given")
    md.add_argument("--again", action="store_true", help="throw away an earlier run in the same folder")


def run(arguments: argparse.Namespace) -> int:
    """``geoeq md``: 0 where all steps are done, 1 where a rule stopped it, 128 and its number where a signal did."""
    from geoeq.resources import import_extra

    console = import_extra("rich.console", "train").Console()
    import_extra("matplotlib", "train")
    import torch

    from geoeq.simulate.md.md_run import run_md
    from geoeq.simulate.md.settings import settings_from_text

    settings, skin = settings_from_text(vars(arguments))
    model, stop = arguments.run, None
    if arguments.max_uncertainty is not None:
        from geoeq.simulate.md.uncertainty_rule import uncertainty_rule
        from geoeq.uncertainty import uncertain_folder

        stop = uncertainty_rule(arguments.max_uncertainty)
        model = uncertain_folder(model)
    outcome = run_md(
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
    )
    if outcome.signal is not None:
        sys.stderr.write(f"Ended at step {outcome.step:,}. The same command goes on there.\n")
        return 128 + outcome.signal  # as shells count it
    return 0 if outcome.stopped is None else 1
