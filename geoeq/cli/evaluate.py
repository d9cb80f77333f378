"""``geoeq evaluate``: the errors of a trained model."""

from __future__ import annotations

import argparse
from pathlib import Path

from geoeq.cli.options import add_trust, new_console

__all__ = ["add_evaluate", "run_evaluate"]


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq evaluate``."""
    parser.epilog = "Example: geoeq evaluate runs/qm7-egnn --split test"
    parser.add_argument("run", type=Path, help="folder of a training run, such as runs/qm7-egnn")
    parser.add_argument(
        "--split",
        metavar="PART",
        help="part of the data to evaluate: train, valid or test (default: valid and test)",
    )
    add_trust(parser)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Print the errors of a trained model."""
    console = new_console()
    from geoeq.training.evaluation.evaluate import evaluate

    evaluate(arguments.run, console, arguments.split, trust=arguments.trust)
    return 0
