"""``geoeq data doctor``: diagnose a data set or a structure file before training on it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from geoeq.cli.options import add_output, add_trust
from geoeq.errors import InputError

__all__ = ["add_data_doctor", "run_data_doctor"]


def add_data_doctor(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``geoeq data doctor``."""
    parser.epilog = "Example: geoeq data doctor frames.xyz --key forces=REF_forces --targets energy,forces"
    add = parser.add_argument
    add("name", help="name of a data set, path of a card, or structure file")
    add(
        "--sample",
        action="store_true",
        help="diagnose only the sample of the data set that is shipped with geoeq",
    )
    add(
        "--full",
        action="store_true",
        help="examine every structure (default: at most 1500 structures and 10 000 atoms)",
    )
    add("--cutoff", type=float, metavar="Å", help="neighbour cutoff radius in Å (default 5)")
    add("--split", metavar="NAME", help="split whose parts are compared (default: the data set's default split)")
    add(
        "--targets",
        metavar="A,B",
        help="labels to examine, which the data must contain, such as energy,forces (default: all labels)",
    )
    add(
        "--key",
        action="append",
        default=[],
        metavar="NAME=KEY",
        help="key under which a file stores a quantity, such as forces=REF_forces, or forces=null to ignore the "
        "quantity; repeat the option for several quantities",
    )
    add("--strict", action="store_true", help="return exit status 1 for warnings, too (default: only for errors)")
    add_trust(parser)
    add_output(parser, "folder for doctor.json and doctor.png (default runs/doctor-NAME)")


def run_data_doctor(arguments: argparse.Namespace) -> int:
    """Diagnose data, and write doctor.json and doctor.png; return 1 for errors, with ``--strict`` also for warnings."""
    from geoeq.resources import import_extra

    import_extra("matplotlib", "plots")
    from geoeq.data_doctor import Diagnosis, diagnose, open_patient
    from geoeq.data_doctor.findings_plot import draw_diagnosis
    from geoeq.files import write_json

    data = open_patient(arguments.name, sample=arguments.sample, keys=_keys(arguments.key), trust=arguments.trust)
    if isinstance(data, Diagnosis):  # of data that cannot be read
        diagnosis = data
    else:
        split = None if arguments.split is None else data.split(arguments.split)
        targets = None if arguments.targets is None else arguments.targets.split(",")
        diagnosis = diagnose(data, split=split, targets=targets, cutoff=arguments.cutoff, full=arguments.full)
    folder = arguments.output or Path("runs") / f"doctor-{Path(arguments.name).name}"
    write_json(folder / "doctor.json", diagnosis.to_dict(), allow_nan=False)
    lines = [*str(diagnosis).split("\n"), f"The full report is '{folder / 'doctor.json'}'."]
    if diagnosis.statistics is not None:
        title = f"{diagnosis.name}: {diagnosis.examined:,} structures"
        draw_diagnosis(folder / "doctor.png", diagnosis.statistics, title)
        lines.append(f"The histograms are in '{folder / 'doctor.png'}'.")
    print("\n".join(lines))
    return 0 if diagnosis.healthy and not (arguments.strict and diagnosis.of("warning")) else 1


def _keys(pairs: Sequence[str]) -> dict[str, str | None]:
    keys: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, key = pair.partition("=")
        if not (name and equals and key):
            raise InputError(f"--key {pair}: write it as in --key forces=REF_forces.")
        keys[name] = None if key == "null" else key
    return keys
