"""Times a step of molecular dynamics: geoeq's networks, and MACE and NequIP as they are published, in one run.

    python benchmarks/md.py [--peers mace nequip | none] [--only PONITA] [--largest 1000] [--threads 2] [--device cpu]

All have random weights and a cutoff of 5 Å, are in float32 with positions in float64 where their calculator takes
such, and are moved by the same loop of ASE, ``VelocityVerlet``, along the same trajectory (``md_worker.py``). Each is a
process of its own; a peer has an environment of its own, which is made on the first run (``md_peers.py``). Up to 1000
atoms they are timed in turns, so that what else the machine does falls on all; a number is the median over the turns
of the mean over a turn's steps. Larger structures follow, one process after another.

A step is divided into the neighbour list, the model (the energy, its derivatives, and the geometry of edges), and the
overhead, which is all the rest: checks, conversions, and what ASE does. Memory is the highest resident size of the
process for a structure, less what it has after aspirin (of a GPU: what PyTorch has allocated). Nothing is compiled by
torch.compile or the compilers of the peers. Writes a JSON file, and the tables beside it in Markdown; with --only,
--largest or other --peers they are only printed, unless --output says where.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import torch
from ase import Atoms
from md_peers import PEERS, interpreter
from md_structures import STRUCTURES
from md_tables import tables
from models import processor

import geoeq
from geoeq.neighbors import radius_edges
from geoeq.training.environment import git_commit

RESULTS = Path(__file__).parent / "results" / "md.json"

CUTOFF = 5.0

#: Structures of more atoms are measured in one process after another.
TOGETHER = 1000

#: Seconds: of one answer, of the first steps with a structure, and of all turns of one potential with one structure
#: (a turn that has begun is finished).
LIMIT, WARMING, PATIENCE = 240.0, 10.0, 20.0

#: Seconds of a step above which a structure of more than ``TOGETHER`` atoms is left out.
LONGEST = 10.0

#: The part of the memory that is free which a potential may need.
SHARE = 0.6


@dataclass(frozen=True)
class Case:
    """One potential."""

    name: str
    factory: str
    arguments: dict[str, Any]
    features: str
    layers: int


CASES = (
    Case("EGNN 64", "geoeq", {"network": "EGNN", "width": 64, "layers": 4}, "64x0e, one vector", 4),
    Case("EGNN 128", "geoeq", {"network": "EGNN", "width": 128, "layers": 4}, "128x0e, one vector", 4),
    Case(
        "FAENet 128, all frames", "geoeq", {"network": "FAENet", "width": 128, "layers": 4, "frames": "full"}, "128", 4
    ),
    Case("PONITA 128", "geoeq", {"network": "PONITA", "preset": "md17"}, "128 on 20 orientations", 5),
    Case(
        "SE3Transformer 32",
        "geoeq",
        {"network": "SE3Transformer", "width": 32, "layers": 4, "lmax": 2},
        "32 of l <= 2",
        4,
    ),
    Case("Equiformer 128", "geoeq", {"network": "Equiformer", "preset": "md17"}, "128x0e + 64x1e + 32x2e", 6),
    *(
        Case(
            f"TensorFieldNetwork {width}, l <= {lmax}",
            "geoeq",
            {"network": "TensorFieldNetwork", "width": width, "layers": 4, "lmax": lmax},
            f"{width} of l <= {lmax}, one parity",
            4,
        )
        for width, lmax in ((32, 1), (32, 2), (64, 1), (64, 2))
    ),
    *(
        Case(f"MACE {width}", "mace", {"hidden_irreps": f"{width}x0e + {width}x1o"}, f"{width}x0e + {width}x1o", 2)
        for width in (64, 128)
    ),
    *(
        Case(
            f"NequIP {width}, l <= {lmax}",
            "nequip",
            {"num_features": width, "l_max": lmax, "num_layers": 4},
            f"{width} of l <= {lmax}, one parity",
            4,
        )
        for width, lmax in ((32, 1), (32, 2), (64, 1), (64, 2))
    ),
)


class Process:
    """A worker, and what it has said."""

    def __init__(self, case: Case, python: Path, threads: int, device: str) -> None:
        here = Path(__file__).resolve().parent
        command = [str(python), "-W", "ignore", "-c", "import md_worker; md_worker.main()", case.factory]
        command += [json.dumps(case.arguments), "--cutoff", str(CUTOFF), "--threads", str(threads), "--device", device]
        paths = [here, here.parent] if case.factory == "geoeq" else [here]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self.failure: str | None = None
        self.spent = 0.0
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """The answer; a failure is kept, and ends the process."""
        began = time.perf_counter()
        answer = self._answer(json.dumps(request) + "\n")
        self.spent += time.perf_counter() - began
        if "failure" in answer:
            self.failure = answer["failure"]
            self.end()
        return answer

    def _answer(self, line: str) -> dict[str, Any]:
        source, target = self._process.stdout, self._process.stdin
        if source is None or target is None:
            return {"failure": "it has no pipes"}
        try:
            target.write(line)
            target.flush()
        except BrokenPipeError:
            return {"failure": f"ended with status {self._process.wait()}"}
        if not select.select([source], [], [], LIMIT)[0]:
            return {"failure": f"took longer than {LIMIT:.0f} s"}
        text = source.readline()
        if not text:
            return {"failure": f"ended with status {self._process.wait()}"}
        answer: dict[str, Any] = json.loads(text)
        return answer

    def end(self) -> None:
        """Stop it, whatever it does."""
        self._process.kill()
        self._process.wait()


def free_memory() -> float:
    """MB that this machine has left (Linux)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) / 1024


def edges_of(atoms: Atoms) -> float:
    """Neighbours of an atom, in the mean."""
    positions = torch.from_numpy(atoms.positions)
    cell = torch.from_numpy(atoms.cell.array)[None] if atoms.pbc.any() else None
    pbc = torch.from_numpy(atoms.pbc)[None] if atoms.pbc.any() else None
    return len(radius_edges(positions, torch.tensor([0, len(atoms)]), CUTOFF, cell, pbc).sender) / len(atoms)


def measure(running: dict[str, Process], path: Path, turns: int, steps: int, seconds: float) -> dict[str, Any]:
    """What all potentials take for one structure: times in turns, then memory."""
    found: dict[str, Any] = {}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    for name, process in running.items():
        process.spent = 0.0
        found[name] = process.ask(do="load", path=str(path), seconds=WARMING)
    for turn in range(turns):
        for name, process in running.items():
            if process.failure is None and (turn == 0 or process.spent < PATIENCE):
                answer = process.ask(do="turn", steps=steps, seconds=seconds)
                times[name] += [] if process.failure else [answer]
    for name, process in running.items():
        if process.failure is None:
            parts = {
                key: statistics.median(turn[key] for turn in times[name]) for key in ("neighbors", "model", "overhead")
            }
            step = statistics.median(sum(turn[key] for key in parts) for turn in times[name])
            found[name] |= parts | {"step": step, "turns": len(times[name])} | process.ask(do="memory")
        if process.failure is not None:
            found[name] = {"failure": process.failure}
    return found


def too_large(case: Case, atoms: int, minutes: float, results: dict[str, Any]) -> str | None:
    """Why a potential is not tried with so many atoms, from what it took with fewer; None where it is tried."""
    known = [
        (entry["atoms"], entry["found"][case.name])
        for entry in results["structures"].values()
        if entry["atoms"] >= 500 and case.name in entry["found"]
    ]
    if not known:
        return None
    before, found = known[-1]
    if "failure" in found:
        reason: str = found["failure"]
        return reason if reason.startswith("not tried") else f"not tried: with {before} atoms it {reason}"
    need, have = found["MB"] / before * atoms, SHARE * free_memory()
    if results["device"] == "cpu" and need > have:
        return f"not tried: it would take {need / 1024:.0f} GB"
    expected = found["step"] / before * atoms / 1e3
    if expected > LONGEST:
        return f"not tried: a step would take {expected:.0f} s"
    if results["minutes"] > minutes:
        return f"not tried: {minutes:.0f} minutes are over"
    return None


def run(given: argparse.Namespace, cases: list[Case], pythons: dict[str, Path], results: dict[str, Any]) -> None:
    """Fill in what was measured, structure by structure."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, make in STRUCTURES.items():
            atoms = make()
            if len(atoms) > given.largest:
                continue
            paths[name] = Path(folder) / f"{len(atoms)}.extxyz"
            ase.io.write(paths[name], atoms, format="extxyz")
            results["structures"][name] = {"atoms": len(atoms), "neighbors": edges_of(atoms), "found": {}}
        small = [name for name in paths if results["structures"][name]["atoms"] <= TOGETHER]
        running = {case.name: Process(case, pythons[case.factory], given.threads, given.device) for case in cases}
        try:
            for name in small:
                alive = {case: process for case, process in running.items() if process.failure is None}
                entry = results["structures"][name]
                entry["found"] = measure(alive, paths[name], given.turns, given.steps, given.seconds)
                results["minutes"] = (time.monotonic() - began) / 60
                report(given, results, name)
        finally:
            for process in running.values():
                process.end()
        for name in [name for name in paths if name not in small]:
            entry = results["structures"][name]
            for case in cases:
                reason = too_large(case, entry["atoms"], given.minutes, results)
                if reason is not None:
                    entry["found"][case.name] = {"failure": reason}
                    continue
                process = Process(case, pythons[case.factory], given.threads, given.device)
                try:
                    process.ask(do="load", path=str(next(iter(paths.values()))), seconds=WARMING)
                    entry["found"] |= measure({case.name: process}, paths[name], 2, given.steps, given.seconds)
                finally:
                    process.end()
                    results["minutes"] = (time.monotonic() - began) / 60
            report(given, results, name)


def report(given: argparse.Namespace, results: dict[str, Any], name: str) -> None:
    """Print one structure, and write what there is so far."""
    for case, found in results["structures"][name]["found"].items():
        print(name, case, json.dumps(found), flush=True)
    if given.output is not None:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        given.output.with_suffix(".md").write_text("\n".join(tables(results)) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", nargs="+", choices=[*PEERS, "none"], default=[*PEERS])
    parser.add_argument("--only", metavar="TEXT", help="of geoeq's networks those with this text in their name")
    parser.add_argument("--largest", type=int, default=10_000, metavar="ATOMS", help="leave larger structures out")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of a turn, at the most")
    parser.add_argument("--seconds", type=float, default=0.5, help="after which no further step of a turn begins")
    parser.add_argument("--minutes", type=float, default=16.0, help="after which no larger structure is begun")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, help="a JSON file; by default that of the whole run, results/md.json")
    given = parser.parse_args()
    whole = set(given.peers) == set(PEERS) and given.only is None and given.largest >= 10_000
    if given.output is None and whole:
        given.output = RESULTS if given.device == "cpu" else RESULTS.with_name("md_cuda.json")
    return given


def main() -> None:
    given = arguments()
    pythons = {"geoeq": Path(sys.executable)}
    without = {}
    for peer in [name for name in given.peers if name != "none"]:
        try:
            pythons[peer] = interpreter(peer)
        except (RuntimeError, subprocess.SubprocessError) as error:  # the others are measured all the same
            without[peer] = str(error)
            print(error, file=sys.stderr, flush=True)
    cases = [case for case in CASES if case.factory in pythons]
    cases = [case for case in cases if case.factory != "geoeq" or given.only is None or given.only in case.name]
    about = (
        f"Written by `python benchmarks/md.py` on {datetime.date.today()}: {processor()}, {given.threads} threads, "
        f"{given.device}, geoeq {geoeq.__version__} (commit {git_commit()}), torch {torch.__version__}."
    )
    results: dict[str, Any] = {
        "about": about,
        "device": given.device,
        "cutoff": CUTOFF,
        "missing": without,
        "models": {
            case.name: {"factory": case.factory, "features": case.features, "layers": case.layers} for case in cases
        },
        "structures": {},
        "minutes": 0.0,
    }
    run(given, cases, pythons, results)
    print("\n".join(tables(results)))


if __name__ == "__main__":
    main()
