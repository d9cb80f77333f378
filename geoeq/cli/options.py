"""Options that several commands share."""

from __future__ import annotations

import argparse

__all__ = ["add_trust"]


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--trust`` to a command that loads a checkpoint."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="allow the checkpoint to import classes that are not part of geoeq; use it only for files that you trust",
    )
