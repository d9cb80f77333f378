"""The command line ``geoeq``: the table of commands, parsing, and the handling of errors."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import geoeq
from geoeq.cli import data, potentials
from geoeq.errors import GeoeqError, unknown_name
from geoeq.trust import import_from_current_folder

__all__ = ["COMMANDS", "build_parser", "main", "parse"]

#: Command and its summary, in the order of ``geoeq --help``. The module ``geoeq.cli.NAME`` implements ``geoeq NAME``:
#: ``add_NAME(parser)`` adds its options, and ``run_NAME(arguments)`` runs it and returns the exit status.
COMMANDS = {
    "train": "train a model from a recipe, or resume an interrupted training",
    "compare": "train several recipes for the same time each, and compare them in a table and a plot",
    "recipes": "list the recipes that ship with geoeq",
    "evaluate": "compute the errors of a trained model on its data set",
    "predict": "predict properties of the structures in a file, or of SMILES",
    "data": "list, fetch, prepare, describe, generate and diagnose data sets",
    "potentials": "list, describe, fetch and convert published potentials",
    "check": "test the symmetries and forces of a model, and optionally locate the layer that breaks a symmetry",
    "md": "run molecular dynamics with a trained model, or resume an interrupted run",
    "calibrate": "add an uncertainty to a model, or combine models into an ensemble, and calibrate it",
    "sample": "select the structures of trajectories that are most worth labelling",
    "export": "export a trained potential to a file that runs without geoeq",
    "doctor": "report which packages, devices and kernels are available on this machine, and why others are not",
    "parity": "compare the outputs of networks with those of their authors' code",
}

#: Commands with actions, such as ``geoeq data list``.
_ACTIONS = {"data": data.ACTIONS, "potentials": potentials.ACTIONS}

_MISTAKE = 2
_INTERRUPTED = 130  # the shells' convention: 128 + signal number


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: arguments after "geoeq"; None takes those of the process.

    Returns:
        The exit status: 0 for success, 1 if a check failed or a stopping rule ended a simulation, 2 for an error
        explained on stderr, 130 if interrupted (143 if SIGTERM ended a simulation).
    """
    arguments = parse(argv)
    if getattr(arguments, "trust", None):
        import_from_current_folder()
    try:
        return int(_function("run", arguments.command)(arguments))
    except KeyboardInterrupt:
        print("Interrupted. To resume a training or a simulation, run the same command again.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GeoeqError, OSError) as error:
        if arguments.debug:
            raise
        print(" ".join(str(error).split("\n")), file=sys.stderr)
        return _MISTAKE


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse arguments; key=value settings may follow options.

    Args:
        argv: as for ``main``.
    """
    parser = build_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        parser.print_help(sys.stderr)
        sys.exit(_MISTAKE)
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        parser.error(unknown_name("command", command, COMMANDS))
    if command in _ACTIONS:
        action = next((word for word in words[words.index(command) + 1 :] if not word.startswith("-")), None)
        if action is not None and action not in _ACTIONS[command]:
            parser.error(unknown_name(f"action of geoeq {command}", action, _ACTIONS[command]))
    arguments, rest = parser.parse_known_args(words)
    takes_settings = hasattr(arguments, "settings")
    settings = [text for text in rest if takes_settings and "=" in text and not text.startswith("-")]
    if len(settings) < len(rest):
        unknown = [text for text in rest if text not in settings]
        hint = f". {_setting_hint(unknown[0], words)}" if takes_settings and unknown[0].startswith("--") else ""
        known = f"'geoeq {arguments.command} --help' lists the known ones"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}; {known}{hint}")
    if settings:  # argparse ends a list of positional arguments at the first option between them
        arguments.settings += settings
    return arguments


def _setting_hint(option: str, words: Sequence[str]) -> str:
    """Return how to write a setting of a recipe that was written as an option, ``--epochs 3`` or ``--epochs=3``."""
    from geoeq.training.recipe import setting_hint

    name, equals, value = option.removeprefix("--").partition("=")
    following = words[words.index(option) + 1 :][:1] if not equals else []
    return setting_hint(name, value or "".join(word for word in following if not word.startswith("-")))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="geoeq",
        description="Geometric graph neural networks for molecules, materials and 3D point clouds.",
        epilog="Example: geoeq train qm7/egnn. Show the options of a command: geoeq train --help.",
    )
    parser.add_argument("--version", action="version", version=f"geoeq {geoeq.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        description = f"{summary[0].upper()}{summary[1:]}."
        _function("add", name)(commands.add_parser(name, help=summary, description=description))
    return parser


def _function(prefix: str, command: str) -> Any:
    return getattr(importlib.import_module(f"geoeq.cli.{command}"), f"{prefix}_{command}")
