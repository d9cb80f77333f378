"""The commands ``geoeq calibrate`` and ``geoeq sample``: their options, and what they call."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parsers", "run_calibrate", "run_sample"]


def add_parsers(commands: Any) -> None:
    """Add both commands.

    Args:
        commands: what ``ArgumentParser.add_subparsers`` gave.
    """
    text = "give a model an uncertainty, or make an ensemble of several, and measure whether it is right"
    made = commands.add_parser("calibrate", help=text)
    made.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run; several make an ensemble")
    made.add_argument("--target", metavar="NAME", help="of one run; its energy if not given")
    made.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="RUN/uncertainty for one run if not given")

    picks = commands.add_parser("sample", help="choose the frames of trajectories that are worth a label")
    picks.add_argument("run", type=Path, help="a run that was calibrated, or what geoeq calibrate wrote")
    picks.add_argument("files", type=Path, nargs="+", metavar="FILE", help="trajectories, or other structures")
    picks.add_argument("--count", type=int, default=20, help="how many, at the most (20)")
    picks.add_argument(
        "-o", "--out", type=Path, default=Path("picks.xyz"), metavar="FILE", help="picks.xyz if not given"
    )
    text = "structures not to be chosen again, such as those trained on; may be given several times"
    picks.add_argument("--known", type=Path, action="append", default=[], metavar="FILE", help=text)
    picks.add_argument("--pool", type=int, metavar="N", help="choose among the N most uncertain (5 times the count)")
    picks.add_argument("--min-uncertainty", metavar="LIMIT", help="leave out frames below it: 5meV/atom")


def run_calibrate(arguments: argparse.Namespace) -> int:
    """``geoeq calibrate``."""
    from geoeq.resources import import_extra

    console = import_extra("rich.console", "train").Console()
    from geoeq.uncertainty import calibrate

    calibrate(arguments.runs, console, target=arguments.target, output=arguments.output)
    return 0


def run_sample(arguments: argparse.Namespace) -> int:
    """``geoeq sample``."""
    from geoeq.resources import import_extra

    console = import_extra("rich.console", "train").Console()
    from geoeq.errors import FieldError, InputError
    from geoeq.uncertainty import sample
    from geoeq.units import parse_quantity

    least, text = 0.0, arguments.min_uncertainty
    if text is not None:
        try:
            least = parse_quantity(text.removesuffix("/atom") if text.endswith("/atom") else "", "eV")
        except FieldError as error:
            raise InputError(f"--min-uncertainty {text}: write it as in --min-uncertainty 5meV/atom.") from error
    sample(
        arguments.run,
        arguments.files,
        arguments.count,
        arguments.out,
        console,
        known=arguments.known,
        pool=arguments.pool,
        least=least,
    )
    return 0
