"""What ``md.py`` measures of one structure, and whether a structure is too large for a potential."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from md_process import CUTOFF, Process

from geoeq.geometry.neighbors import radius_edges

__all__ = ["WARMING", "edges_of", "expected", "measure", "too_large"]

#: Seconds of the first steps with a structure, and of all turns of one potential with one structure (a turn that has
#: begun is finished).
WARMING, PATIENCE = 10.0, 20.0

#: Seconds of a step above which a structure that is measured alone is left out.
LONGEST = 10.0

#: The part of the memory that is free which a potential may need.
SHARE = 0.6


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


def _known(name: str, atoms: int, results: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
    """What was found of a potential with the most atoms that are fewer than so many, and at least 500."""
    found = [
        (entry["atoms"], entry["found"][name])
        for entry in results["structures"].values()
        if 500 <= entry["atoms"] < atoms and name in entry["found"]
    ]
    found = [(atoms, row) for atoms, row in found if not row.get("failure", "").endswith("minutes are over")]
    return max(found, key=lambda pair: pair[0], default=None)


def expected(name: str, atoms: int, results: dict[str, Any]) -> float:
    """Seconds of a step with so many atoms, by what it took with fewer; infinite where that is not known."""
    known = _known(name, atoms, results)
    if known is None or "step" not in known[1]:
        return float("inf")
    return float(known[1]["step"]) / known[0] * atoms / 1e3


def too_large(name: str, atoms: int, results: dict[str, Any]) -> str | None:
    """Why a potential is not tried with so many atoms, from what it took with fewer; None where it is tried."""
    known = _known(name, atoms, results)
    if known is None:
        return None
    before, found = known
    if "failure" in found:
        reason: str = found["failure"]
        return reason if reason.startswith("not tried") else f"not tried: with {before} atoms it {reason}"
    need, have = found["MB"] / before * atoms, SHARE * free_memory()
    if results["device"] == "cpu" and need > have:
        return f"not tried: it would take {need / 1024:.0f} GB"
    seconds = expected(name, atoms, results)
    return f"not tried: a step would take {seconds:.0f} s" if seconds > LONGEST else None
