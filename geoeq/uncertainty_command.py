"""The commands ``geoeq calibrate`` and ``geoeq sample``: their options, and what they call."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_parsers", "run_calibrate"]


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


def run_calibrate(arguments: argparse.Namespace) -> int:
    """``geoeq calibrate``."""
    from geoeq.extras import import_extra

    console = import_extra("rich.console", "train").Console()
    from geoeq.uncertainty import calibrate

    calibrate(arguments.runs, console, target=arguments.target, output=arguments.output)
    return 0
