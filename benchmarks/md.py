"""Times a step of molecular dynamics: geoeq's networks, and MACE and NequIP as they are published, in one run.

    python benchmarks/md.py [--peers mace nequip | none] [--case "EGNN 64" PONITA] [--sizes 1000 10000] [--threads 2]

All have random weights and a cutoff of 5 Å, are in float32 with positions in float64 where their calculator takes
such, and are moved by the same loop of ASE, ``VelocityVerlet``, along the same trajectory (``md_worker.py``). Each is a
process of its own; a peer has an environment of its own, which is made on the first run (``md_peers.py``). Up to 1000
atoms they are timed in turns, so that what else the machine does falls on all; a number is the median over the turns
of the mean over a turn's steps. Larger structures follow, one process after another, those first whose step is expected
to take the least time, so that many are done when the minutes are over.

A step is divided into the neighbour list, the model (the energy, its derivatives, and the geometry of edges), and the
overhead, which is all the rest: checks, conversions, and what ASE does. Memory is the highest resident size of the
process for a structure, less what it has after aspirin (of a GPU: what PyTorch has allocated). Nothing is compiled by
torch.compile or the compilers of the peers. Writes a JSON file, and the tables beside it in Markdown. With --case,
--sizes or other --peers tables are only printed, unless --output says where: the rows of a file that is there already
are kept but for those measured now, and each tells its run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ase.io
from md_cases import CASES, Case
from md_measure import WARMING, edges_of, expected, measure, too_large
from md_peers import PEERS, interpreter
from md_process import Process
from md_results import begin, new
from md_structures import STRUCTURES
from md_tables import tables
from models import write_results

RESULTS = Path(__file__).parent / "results" / "md.json"

#: Structures of more atoms are measured in one process after another.
TOGETHER = 1000


def run(given: argparse.Namespace, cases: list[Case], pythons: dict[str, Path], results: dict[str, Any]) -> None:
    """Fill in what is measured: small structures with all potentials in turns, then large ones one by one."""
    began = time.monotonic()

    def process_of(case: Case) -> Process:
        return Process(case, pythons[case.factory], given.threads, given.device)

    def keep(name: str, found: dict[str, Any]) -> None:
        for case, row in found.items():
            results["structures"][name]["found"][case] = row | {"run": len(results["runs"])}
            print(name, case, json.dumps(row), flush=True)
        results["minutes"] = (time.monotonic() - began) / 60
        if given.output is not None:
            write_results(given.output, results, "\n".join(tables(results)) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        paths, sizes = {}, {}
        for name, make in STRUCTURES.items():
            atoms = make()
            paths[name], sizes[name] = Path(folder) / f"{len(atoms)}.extxyz", len(atoms)
            ase.io.write(paths[name], atoms, format="extxyz")
            if wanted(given, sizes[name]):
                entry = {"atoms": len(atoms), "neighbors": edges_of(atoms), "found": {}}
                results["structures"].setdefault(name, entry)
        smallest = str(next(iter(paths.values())))  # memory is told beyond what it takes
        order = [name for name in STRUCTURES if name in results["structures"]]
        results["structures"] = {name: results["structures"][name] for name in order}
        chosen = [name for name in order if wanted(given, sizes[name])]

        small = [name for name in chosen if sizes[name] <= TOGETHER]
        running = {case.name: process_of(case) for case in (cases if small else [])}
        try:
            for name in small:
                alive = {case: process for case, process in running.items() if process.failure is None}
                if name == small[0] and str(paths[name]) != smallest:
                    for process in alive.values():
                        process.ask(do="load", path=smallest, seconds=WARMING)
                keep(name, measure(alive, paths[name], given.turns, given.steps, given.seconds))
        finally:
            for process in running.values():
                process.end()

        waiting = [(name, case) for name in chosen if name not in small for case in cases]
        while waiting:  # what has just been measured tells what to expect of larger ones
            name, case = min(waiting, key=lambda pair: expected(pair[1].name, sizes[pair[0]], results))
            waiting.remove((name, case))
            reason = too_large(case.name, sizes[name], results)
            if reason is None and (time.monotonic() - began) / 60 > given.minutes:
                reason = f"not tried: {given.minutes:g} minutes are over"
            if reason is not None:
                keep(name, {case.name: {"failure": reason}})
                continue
            process = process_of(case)
            try:
                process.ask(do="load", path=smallest, seconds=WARMING)
                keep(name, measure({case.name: process}, paths[name], 2, given.steps, given.seconds))
            finally:
                process.end()


def wanted(given: argparse.Namespace, atoms: int) -> bool:
    """Whether structures of so many atoms are measured."""
    return given.sizes is None or atoms in given.sizes


def arguments() -> argparse.Namespace:
    """What was asked for; the whole of it is written to ``RESULTS`` if nothing else is said."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=[*PEERS, "none"], default=[*PEERS])
    parser.add_argument("--case", nargs="+", metavar="TEXT", help="potentials with one of these texts in their name")
    known = [len(make()) for make in STRUCTURES.values()]
    parser.add_argument("--sizes", nargs="+", type=int, choices=known, help="structures of so many atoms")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of a turn, at the most")
    parser.add_argument("--seconds", type=float, default=0.5, help="after which no further step of a turn begins")
    parser.add_argument("--minutes", type=float, default=16.0, help="after which no larger structure is begun")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, help="a JSON file; by default that of the whole run, results/md.json")
    given = parser.parse_args()
    given.cases = [case for case in CASES if given.case is None or any(text in case.name for text in given.case)]
    if not given.cases:
        parser.error(f"No potential has such a name. Known: {', '.join(case.name for case in CASES)}.")
    given.whole = set(given.peers) == set(PEERS) and given.case is None and given.sizes is None
    if given.output is None and given.whole:
        given.output = RESULTS if given.device == "cpu" else RESULTS.with_name("md_cuda.json")
    return given


def main() -> None:
    given = arguments()
    whole = new(given.threads, given.device)  # which takes the place of all earlier runs
    results = whole if given.whole else begin(given.output, given.threads, given.device)
    pythons = {"geoeq": Path(sys.executable)}
    for peer in {case.factory for case in given.cases} & set(given.peers):
        results["missing"].pop(peer, None)
        try:
            pythons[peer] = interpreter(peer)
        except (RuntimeError, subprocess.SubprocessError) as error:  # the others are measured all the same
            results["missing"][peer] = str(error)
            print(error, file=sys.stderr, flush=True)
    cases = [case for case in given.cases if case.factory in pythons]
    for case in cases:
        results["models"][case.name] = {"factory": case.factory, "features": case.features, "layers": case.layers}
    order = [case.name for case in CASES if case.name in results["models"]]
    results["models"] = {name: results["models"][name] for name in order}
    run(given, cases, pythons, results)
    print("\n".join(tables(results)))


if __name__ == "__main__":
    main()
