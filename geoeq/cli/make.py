"""What ``geoeq data make`` takes and does."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoeq.errors import InputError

if TYPE_CHECKING:
    from geoeq.factory.write_dataset import Summary

__all__ = ["add_parser", "make"]


def add_parser(actions: Any) -> None:
    """Add the command to ``actions``, those of ``geoeq data``."""
    parser = actions.add_parser("make", help="make a data set: from SMILES, files or surfaces, sampled and labelled")
    add, text = parser.add_argument, "a file of SMILES, one in a line, or one SMILES; may be given several times"
    add("--smiles", action="append", default=[], metavar="FILE", help=text)
    add("--structures", action="append", default=[], type=Path, metavar="FILE", help="sdf, or what ASE reads")
    add("--surface", action="append", default=[], metavar="METAL:FACET:SIZE", help="as in Cu:fcc111:2x2x4")
    add("--adsorbates", metavar="A,B", help="on each surface: H,O,CO")
    add("--method", required=True, help="gfn2, gfn1, emt, lj, or the class path of a calculator of ASE")
    add("--argument", action="append", default=[], metavar="NAME=VALUE", help="of the calculator")
    add("--conformers", type=int, default=1, metavar="N", help="of each SMILES, at the most (1)")
    add("--relax", action="store_true", help="relax every start with the method first")
    add(
        "--md",
        metavar="T:N",
        help="300K:50, frames of dynamics from each start; 300K:50:40fs tells their distance",
    )
    add("--rattle", metavar="LENGTH:N", help="0.05Å:20, frames of random displacements of each start")
    add("--modes", metavar="T:N", help="300K:20, frames of vibrations about the minimum of each start")
    add("--max-force", type=float, default=100.0, metavar="F", help="leave out structures with more, eV/Å (100)")
    add("--seed", type=int, default=0, help="of conformers, sampling and split (0)")
    add("--processes", type=int, metavar="N", help="that work at once (as many as there are cores)")
    add("--dask", metavar="ADDRESS", help="the workers of this scheduler work, on all machines")
    add("--again", action="store_true", help="throw away an earlier set in the same folder")
    add("-o", "--out", "--output", dest="output", type=Path, required=True, metavar="FOLDER", help="of the data set")


def make(arguments: argparse.Namespace) -> list[str]:
    """Make the set, and say what is in it.

    Raises:
        GeoeqError: an option is wrong, a package is missing, or nothing could be labelled.
    """
    from geoeq.factory import MD, Modes, Rattle, Settings, Sources, make_set

    settings = Settings(
        method=arguments.method,
        arguments=dict(map(_argument, arguments.argument)),
        conformers=arguments.conformers,
        relax=arguments.relax,
        seed=arguments.seed,
        max_force=arguments.max_force,
        md=MD.parse(arguments.md) if arguments.md else None,
        rattle=Rattle.parse(arguments.rattle) if arguments.rattle else None,
        modes=Modes.parse(arguments.modes) if arguments.modes else None,
    )
    sources = Sources(
        smiles=tuple(smiles for text in arguments.smiles for smiles in _smiles(text)),
        structures=tuple(arguments.structures),
        surfaces=tuple(arguments.surface),
        adsorbates=tuple(filter(None, (arguments.adsorbates or "").split(","))),
    )
    processes = arguments.processes
    if processes is not None and processes < 1:
        raise InputError(f"--processes {processes}: at least 1 would be right.")
    made = make_set(
        arguments.output, sources, settings, processes=processes, dask=arguments.dask, again=arguments.again
    )
    return _lines(made)


def _smiles(text: str) -> list[str]:
    """Those of a file, or the SMILES itself; a name with a dot in it that is no SMILES is meant as a file."""
    from geoeq.data.molecules.conformers import read_smiles

    path = Path(text)
    return read_smiles(path) if path.is_file() or path.suffix in (".smi", ".smiles", ".txt", ".csv") else [text]


def _argument(text: str) -> tuple[str, Any]:
    import yaml

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--argument {text}: write it as in --argument sigma=3.4.")
    return name, yaml.safe_load(value)


def _lines(summary: Summary) -> list[str]:
    sizes = ", ".join(f"{part} {size}" for part, size in summary.sizes.items())
    lines = [
        f"{summary.structures} structures in {summary.card.parent}: {sizes}",
        f"division: {summary.division}",
    ]
    if summary.failures:
        lines.append(f"failures: {len(summary.failures)}, in {summary.card.parent / 'failures.csv'}:")
        counted = Counter(f"{failure.step.partition(',')[0]}: {failure.reason}" for failure in summary.failures)
        lines += [f"  {count} x {reason}" for reason, count in counted.most_common(5)]
    return [*lines, f"next: geoeq train RECIPE dataset={summary.card.parent}"]
