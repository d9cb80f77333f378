"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from geoeq.resources import import_extra

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["add_output", "add_trust", "new_console"]


def add_output(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the option ``--output`` for a folder, with its help text."""
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help=text)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--trust`` to a command that loads a checkpoint or a card."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="allow the checkpoint or card to run code of this module, which is not part of geoeq; it may be in the "
        "current folder; repeat the option for several modules (default: only code of geoeq)",
    )


def new_console() -> Console:
    """Return the console that a command prints to.

    Raises:
        MissingExtraError: the extra "plots" is not installed.
    """
    console: Console = import_extra("rich.console", "plots").Console()
    return console
