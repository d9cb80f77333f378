"""``geoeq compare``: train several recipes for the same time each."""

from __future__ import annotations

import argparse
from pathlib import Path

from geoeq.cli.options import new_console
from geoeq.trust import import_from_current_folder

__all__ = ["add_compare", "run_compare"]


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq compare``."""
    parser.epilog = "Example: geoeq compare 'nbody/*-quick' --budget 5min"
    add = parser.add_argument
    add(
        "settings",
        nargs="+",
        metavar="RECIPE",
        help="recipes, as files, shipped names or patterns such as 'nbody/*-quick'; "
        "and key=value settings that override those of every recipe",
    )
    add("--budget", required=True, metavar="TIME", help="training time of each recipe, such as 90s, 5min or 1h")
    add(
        "--run",
        type=Path,
        metavar="FOLDER",
        help="folder for the runs and the comparison (default runs/compare-DATASET)",
    )
    add("--sample", action="store_true", help="use only the small sample of the data set that is shipped with geoeq")
    add("--again", action="store_true", help="delete earlier runs of these recipes instead of keeping finished ones")


def run_compare(arguments: argparse.Namespace) -> int:
    """Train and compare recipes; return 1 if one of them failed."""
    console = new_console()
    import_from_current_folder()  # a recipe names the user's own classes by class path
    from geoeq.training.budget import parse_budget
    from geoeq.training.evaluation.comparison import compare_recipes
    from geoeq.training.parsing import find_recipes

    comparison = compare_recipes(
        [file for text in arguments.settings if "=" not in text for file in find_recipes(text)],
        parse_budget(arguments.budget),
        console,
        settings=[text for text in arguments.settings if "=" in text] + ["sample=true"] * arguments.sample,
        folder=arguments.run,
        again=arguments.again,
    )
    return 0 if len(comparison.finished) == len(comparison.contenders) else 1
