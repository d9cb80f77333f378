"""``geoeq sample``: select the structures of trajectories that are most worth labelling."""

from __future__ import annotations

import argparse
from pathlib import Path

from geoeq.cli.options import add_trust, new_console

__all__ = ["add_sample", "run_sample"]


def add_sample(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq sample``."""
    parser.epilog = "Example: geoeq sample runs/silicon trajectory.extxyz --count 20"
    add = parser.add_argument
    add(
        "run", type=Path, help="folder of a training run that has been calibrated, or folder that geoeq calibrate wrote"
    )
    add("files", type=Path, nargs="+", metavar="FILE", help="trajectories or other structure files to select from")
    add("--count", type=int, default=20, help="maximum number of structures to select (default 20)")
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("picks.xyz"),
        metavar="FILE",
        help="file for the selected structures (default picks.xyz)",
    )
    add(
        "--known",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="file with structures that must not be selected again, such as training data; repeat the option for "
        "several files",
    )
    add(
        "--pool",
        type=int,
        metavar="N",
        help="number of the most uncertain structures, from which diverse ones are selected (default: 5 times --count)",
    )
    add(
        "--min-uncertainty",
        metavar="LIMIT",
        help="smallest uncertainty of a selected structure, such as 5meV/atom (default: no limit)",
    )
    add_trust(parser)


def run_sample(arguments: argparse.Namespace) -> int:
    """Select structures, and write them to a file."""
    console = new_console()
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
        arguments.output,
        console,
        known=arguments.known,
        pool=arguments.pool,
        least=least,
        trust=arguments.trust,
    )
    return 0
