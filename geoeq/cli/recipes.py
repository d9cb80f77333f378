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
        help="names of recipes, or patterns such as 'nbody/*-quick' (default: all recipes)",
    )


def run_recipes(arguments: argparse.Namespace) -> int:
    """Print one line per recipe: name, task, network, size, and training time with its hardware if it was measured."""
    from geoeq.training.parsing import find_recipes, shipped_recipes

    files = {file.resolve() for pattern in arguments.patterns for file in find_recipes(pattern)}
    recipes = [recipe for recipe in shipped_recipes() if recipe.file.resolve() in files or not arguments.patterns]
    header = ("recipe", "task", "network", "training", "time")
    rows = [header, *((r.name, r.task, r.model, r.size, r.time or "not measured") for r in recipes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip())
    return 0
