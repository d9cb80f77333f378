"""``geoeq recipes``: list the recipes that are shipped with geoeq."""

from __future__ import annotations

import argparse

__all__ = ["add_recipes", "run_recipes"]


def add_recipes(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq recipes``."""
    parser.epilog = "Example: geoeq recipes 'nbody/*-quick'"
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="names of recipes or patterns such as 'nbody/*-quick' (default: all recipes)",
    )


def run_recipes(arguments: argparse.Namespace) -> int:
    """Print one line per recipe."""
    raise NotImplementedError
