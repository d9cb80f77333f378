"""``geoeq calibrate``: add an uncertainty to a model, or combine models into an ensemble, and calibrate it."""

from __future__ import annotations

import argparse
from pathlib import Path

from geoeq.cli.options import add_output, add_trust, new_console

__all__ = ["add_calibrate", "run_calibrate"]


def add_calibrate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq calibrate``."""
    parser.epilog = "Example: geoeq calibrate runs/silicon"
    add = parser.add_argument
    add(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="folder of a training run, such as runs/silicon; several folders are combined into an ensemble",
    )
    add(
        "--target",
        metavar="NAME",
        help="output of a single model to which the uncertainty is added (default: its energy)",
    )
    add_output(
        parser, "folder for the calibrated model; required for an ensemble (default for one run: RUN/uncertainty)"
    )
    add_trust(parser)


def run_calibrate(arguments: argparse.Namespace) -> int:
    """Calibrate, and print how well the uncertainty describes the errors."""
    console = new_console()
    from geoeq.uncertainty import calibrate

    calibrate(arguments.runs, console, target=arguments.target, output=arguments.output, trust=arguments.trust)
    return 0
