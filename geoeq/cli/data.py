"""``geoeq data``: list, fetch, prepare, describe, generate and diagnose data sets."""

from __future__ import annotations

import argparse

from geoeq.cli.data_doctor import add_data_doctor, run_data_doctor
from geoeq.cli.make import add_make, run_make
from geoeq.cli.options import add_trust

__all__ = ["ACTIONS", "add_data", "run_data"]

#: Action and its summary, in the order of ``geoeq data --help``.
ACTIONS = {
    "list": "list the data sets that geoeq knows",
    "fetch": "download the published files of a data set, resuming interrupted downloads, and verify them",
    "prepare": "fetch a data set and convert it to arrays in the cache",
    "info": "describe a data set or a structure file",
    "make": "generate a labelled data set from SMILES, structure files or surfaces",
    "doctor": "diagnose data: labels, units, outliers, duplicates, leaks between training and test set",
}


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the actions of ``geoeq data`` with their options."""
    parser.epilog = "Example: geoeq data info qm9"
    group = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions = {
        name: group.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        for name, summary in ACTIONS.items()
    }
    add_make(actions["make"])
    add_data_doctor(actions["doctor"])
    actions["list"].epilog = "Example: geoeq data list"
    for name in ("fetch", "prepare", "info"):
        actions[name].epilog = f"Example: geoeq data {name} qm9"
        kinds = "name of a data set, path of a card, or structure file"
        if name != "info":
            kinds = "name of a data set, or path of a card"
        actions[name].add_argument("name", help=kinds)
        add_trust(actions[name])
    for name in ("prepare", "info"):
        sample = "use only the small sample of the data set that is shipped with geoeq"
        actions[name].add_argument("--sample", action="store_true", help=sample)
    actions["prepare"].add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="number of processes that read a large data set (default: number of CPU cores, at most 4)",
    )
    actions["prepare"].add_argument(
        "--dask", metavar="ADDRESS", help="address of a Dask scheduler whose workers read instead of local processes"
    )


def run_data(arguments: argparse.Namespace) -> int:
    """Run one action, and return the exit status."""
    if arguments.action == "doctor":
        return run_data_doctor(arguments)
    if arguments.action == "make":
        return run_make(arguments)
    from geoeq.cli.data_reports import fetch_lines, info_lines, list_lines, prepare_lines

    if arguments.action == "list":
        lines = list_lines()
    elif arguments.action == "fetch":
        lines = fetch_lines(arguments.name, trust=arguments.trust)
    elif arguments.action == "prepare":
        lines = prepare_lines(
            arguments.name,
            sample=arguments.sample,
            processes=arguments.processes,
            dask=arguments.dask,
            trust=arguments.trust,
        )
    else:
        lines = info_lines(arguments.name, sample=arguments.sample, trust=arguments.trust)
    print("\n".join(lines))
    return 0
