"""``geoeq export``: a trained potential as a file that runs without its Python code."""

from __future__ import annotations

import argparse
from pathlib import Path

from geoeq.cli.options import add_trust

__all__ = ["add_export", "run_export"]


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq export``."""
    parser.epilog = "Example: geoeq export runs/rmd17-egnn potential.pt2"
    add = parser.add_argument
    add(
        "run",
        type=Path,
        help="folder of a training run or checkpoint, such as runs/rmd17-egnn, or published potential, such as 7net-0",
    )
    add(
        "output",
        type=Path,
        metavar="OUT",
        help="file to write; the suffix selects the format: OUT.pt2 for torch.export (the compiled program becomes "
        "OUT-compiled.pt2), "
        "OUT.pt for metatomic",
    )
    add(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="also compile the program to machine code, which takes minutes (default: if a C++ compiler is installed)",
    )
    add(
        "--dtype",
        choices=("float32", "float64"),
        help="floating-point type of the exported model (default: that of the run)",
    )
    add("--device", default="cpu", help="device on which the exported program will run: cpu or cuda (default cpu)")
    add(
        "--data",
        type=Path,
        metavar="FILE",
        help="file with structures on which the exported program is compared with the model, in addition to random "
        "ones (default: none)",
    )
    add_trust(parser)


def run_export(arguments: argparse.Namespace) -> int:
    """Export a potential, and print what was written and how exactly it reproduces the model."""
    import torch

    from geoeq.data.structures import read_structures
    from geoeq.simulate.engines.export import export_potential

    dtype = getattr(torch, arguments.dtype) if arguments.dtype else None
    if arguments.output.suffix == ".pt":
        from geoeq.simulate.engines.metatomic import export_metatomic

        error = export_metatomic(
            arguments.run, arguments.output, device=arguments.device, dtype=dtype, trust=arguments.trust
        )
        print(f"{arguments.output}: metatomic model; largest relative difference from the geoeq model {error:.1e}")
        return 0
    structures = read_structures(arguments.data) if arguments.data else []
    export = export_potential(
        arguments.run,
        arguments.output,
        device=arguments.device,
        dtype=dtype,
        compiled=arguments.compile,
        structures=[structure.atoms for structure in structures],
        trust=arguments.trust,
    )
    print(f"{export.program}: exported program; largest relative difference from the model {export.error:.1e}")
    print(f"{export.compiled}: compiled program" if export.compiled else f"Not compiled: {export.note}.")
    return 0
