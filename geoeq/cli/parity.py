"""``geoeq parity``: compare networks with numbers from their authors' own code."""

from __future__ import annotations

import argparse

__all__ = ["add_parity", "run_parity"]


def add_parity(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq parity``."""
    parser.epilog = "Example: geoeq parity egnn escn"
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help="name of a network, such as egnn, to run its shipped cases; or the .safetensors file of a case, with the "
        ".json file of the same name beside it (default: all shipped cases)",
    )
    parser.add_argument(
        "--network",
        help="name of the network that the .safetensors files belong to, such as egnn (default: the name of each "
        "file's folder)",
    )


def run_parity(arguments: argparse.Namespace) -> int:
    """Compare every case; return 1 if one of them differs."""
    from geoeq.parity import run

    lines, passed = run(arguments.cases, arguments.network)
    print("\n".join(lines))
    return 0 if passed else 1
