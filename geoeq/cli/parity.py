"""``geoeq parity``: compare networks with numbers from their authors' own code."""

from __future__ import annotations

import argparse

__all__ = ["add_parity", "run_parity"]


def add_parity(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq parity``."""
    parser.epilog = "Example: geoeq parity golden/egnn/*.safetensors"
    parser.add_argument(
        "cases", nargs="+", metavar="CASE.safetensors", help="files with parameters, inputs and outputs of a case"
    )
    parser.add_argument("--network", help="name of the network (default: the name of the file's folder)")


def run_parity(arguments: argparse.Namespace) -> int:
    """Compare every case; return 1 if one of them differs."""
    from geoeq.parity.cases import run

    lines, passed = run(arguments.cases, arguments.network)
    print("\n".join(lines))
    return 0 if passed else 1
