"""``geoeq predict``: predictions for the structures of a file, or for SMILES."""

from __future__ import annotations

import argparse
from pathlib import Path

from geoeq.cli.options import add_trust, new_console
from geoeq.errors import InputError

__all__ = ["add_predict", "run_predict"]


def add_predict(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq predict``."""
    parser.epilog = "Example: geoeq predict runs/qm7-egnn water.xyz -o predictions.csv"
    add = parser.add_argument
    add(
        "run", type=Path, help="folder of a training run, such as runs/qm7-egnn, or published potential, such as 7net-0"
    )
    add(
        "file",
        type=Path,
        nargs="?",
        help="structure file: sdf, or a format that ASE reads (xyz, cif, traj, ...); or file of SMILES: .smi (SMILES "
        "and name in each line) or .csv (columns smiles and name)",
    )
    add("--smiles", action="append", default=[], help="SMILES of a molecule; repeat the option for several molecules")
    add(
        "-o",
        "--output",
        type=Path,
        help="file to write, with the suffix .csv, .xyz or .extxyz (default: print a table)",
    )
    add(
        "--unit",
        action="append",
        default=[],
        metavar="NAME=UNIT",
        help="unit for an output, such as gap=meV; repeat the option for several outputs "
        "(default: the units of the training run)",
    )
    add("--batch-size", type=int, default=256, help="number of structures per batch (default 256)")
    add(
        "--conformers",
        action="store_true",
        help="for an sdf file, such as one of drawings: generate the geometries from the bonds instead of reading them",
    )
    add_trust(parser)


def run_predict(arguments: argparse.Namespace) -> int:
    """Predict, and print or write the results; return 1 if there is no prediction for some of the structures."""
    console = new_console()
    from geoeq.training.evaluation.predict import predict

    pairs = [text.partition("=") for text in arguments.unit]
    for name, equals, unit in pairs:
        if not (name and equals and unit):
            raise InputError(f"--unit {name}{equals}{unit}: write it as in --unit gap=meV.")
    predictions = predict(
        arguments.run,
        console,
        file=arguments.file,
        smiles=arguments.smiles,
        output=arguments.output,
        units={name: unit for name, _, unit in pairs},
        batch_size=arguments.batch_size,
        conformers=arguments.conformers,
        trust=arguments.trust,
    )
    return 0 if all(predictions) else 1
