"""``geoeq data make``: generate a labelled data set from SMILES, structure files or surfaces."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoeq.errors import InputError
from geoeq.trust import import_from_current_folder

if TYPE_CHECKING:
    from geoeq.factory.write_dataset import Summary

__all__ = ["add_make", "run_make"]


def add_make(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq data make``."""
    parser.epilog = "Example: geoeq data make --smiles molecules.smi --method gfn2 --md 300K:50 -o molecules"
    add = parser.add_argument
    add(
        "--smiles",
        action="append",
        default=[],
        metavar="FILE",
        help="file with one SMILES per line, or a single SMILES; repeat the option for several of them",
    )
    add(
        "--structures",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="file with initial structures: sdf, or a format that ASE reads; repeat the option for several files",
    )
    add(
        "--surface",
        action="append",
        default=[],
        metavar="METAL:FACET:SIZE",
        help="metal surface, such as Cu:fcc111:2x2x4; repeat the option for several surfaces",
    )
    add("--adsorbates", metavar="A,B", help="adsorbates to place on each surface, such as H,O,CO")
    add(
        "--method",
        required=True,
        help="method that computes the labels: gfn2, gfn1, emt, lj, or the class path of an ASE calculator",
    )
    add(
        "--argument",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument of the calculator, such as sigma=3.4; repeat the option for several arguments",
    )
    add("--conformers", type=int, default=1, metavar="N", help="maximum number of conformers per SMILES (default 1)")
    add("--relax", action="store_true", help="relax every initial structure with the method before sampling")
    add(
        "--md",
        metavar="T:N",
        help="sample N frames of molecular dynamics at temperature T from each initial structure, such as 300K:50; "
        "300K:50:40fs also sets the time between frames (default: no dynamics; 20fs between frames)",
    )
    add(
        "--rattle",
        metavar="LENGTH:N",
        help="sample N copies of each initial structure with random displacements of this standard deviation, such as "
        "0.05Å:20 "
        "(default: none)",
    )
    add(
        "--modes",
        metavar="T:N",
        help="sample N frames of harmonic vibrations at temperature T about the minimum of each initial structure, "
        "such as 300K:20 (default: none)",
    )
    add(
        "--max-force",
        type=float,
        default=100.0,
        metavar="F",
        help="largest force on any atom, in eV/Å; structures with larger forces are left out (default 100)",
    )
    add("--seed", type=int, default=0, help="random seed of the conformers, the sampling and the split (default 0)")
    add("--processes", type=int, metavar="N", help="number of parallel processes (default: number of CPU cores)")
    add(
        "--dask",
        metavar="ADDRESS",
        help="address of a Dask scheduler whose workers compute instead of local processes",
    )
    add("--again", action="store_true", help="delete an earlier data set in the same folder and start again")
    add(
        "-o",
        "--out",
        "--output",
        dest="output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for the data set; geoeq train accepts it as dataset=FOLDER",
    )


def run_make(arguments: argparse.Namespace) -> int:
    """Generate a data set, and print a summary."""
    import_from_current_folder()  # the method may be the user's own class
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
        raise InputError(f"--processes {processes}: must be at least 1.")
    summary = make_set(
        arguments.output, sources, settings, processes=processes, dask=arguments.dask, again=arguments.again
    )
    print("\n".join(_lines(summary)))
    return 0


def _smiles(text: str) -> list[str]:
    """Return the SMILES of a file, or the text itself; a text with the suffix of a file must be a file."""
    from geoeq.data.molecules.conformers import read_smiles

    path = Path(text)
    return read_smiles(path) if path.is_file() or path.suffix in (".smi", ".smiles", ".txt", ".csv") else [text]


def _argument(text: str) -> tuple[str, Any]:
    from geoeq.documents import parse_yaml

    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--argument {text}: write it as in --argument sigma=3.4.")
    return name, parse_yaml(value, f"--argument {name}", InputError)


def _lines(summary: Summary) -> list[str]:
    sizes = ", ".join(f"{part} {size}" for part, size in summary.sizes.items())
    lines = [
        f"{summary.structures} structures in {summary.card.parent}: {sizes}",
        f"division: {summary.division}",
    ]
    if summary.failures:
        lines.append(f"failures: {len(summary.failures)}, listed in {summary.card.parent / 'failures.csv'}:")
        counts = Counter(f"{failure.step.partition(',')[0]}: {failure.reason}" for failure in summary.failures)
        lines += [f"  {count} x {reason}" for reason, count in counts.most_common(5)]
    return [*lines, f"next: geoeq train RECIPE dataset={summary.card.parent}"]
