"""Does it pay to choose which structures are labelled? ``geoeq sample`` against random choice.

    python benchmarks/active.py [--seeds 3] [--threads 1] [--steps 300] [--output STEM]

Clusters of 13 copper atoms with EMT, a potential that costs nothing. An EGNN learns 30 frames of a trajectory at 300 K;
three times 20 more are chosen of a pool of 400, half of which comes from a trajectory at 900 K. They are chosen by
``geoeq sample`` with the uncertainty of the last layer, by ``geoeq sample`` with an ensemble of three, or at random.
Errors are those of one network, on 100 frames of other trajectories, of which none is chosen. Every fifth of the
labelled frames sets the free numbers of the uncertainty, and is learnt too.

Writes results/active.json and .md.
"""

from __future__ import annotations

import argparse
import datetime
import io
import platform
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from models import processor, write_results
from rich.console import Console
from torch_geometric.data import Batch

import geoeq
from geoeq.environment import git_commit
from geoeq.graph import build_graph
from geoeq.models import EGNN, Ensemble, Forces, GraphScalar, LastLayer, Model
from geoeq.models.checkpoint import save_checkpoint
from geoeq.uncertainty import fit_last_layer, sample
from geoeq.uncertainty.deduplicate import batches

RESULTS = Path(__file__).parent / "results" / "active"
COLD, HOT = 300.0, 900.0
FIRST, MORE, ROUNDS = 30, 20, 3
BATCH, CUTOFF = 10, 4.5


def trajectory(temperature: float, count: int, seed: int) -> list[Atoms]:
    """Frames 40 fs apart, after 1 ps, with the labels of EMT."""
    random = np.random.RandomState(seed)
    atoms = Octahedron("Cu", 3, 1)
    atoms.calc = EMT()
    MaxwellBoltzmannDistribution(atoms, temperature_K=2 * temperature, rng=random)
    run = Langevin(atoms, 5 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=random)
    run.run(200)
    frames = []
    for _ in range(count):
        run.run(8)
        frame = Atoms(atoms.numbers, atoms.positions)
        found = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        frame.calc = SinglePointCalculator(frame, **found)
        frames.append(frame)
    return frames


def labelled(frames: Sequence[Atoms]) -> Batch:
    """As one batch, with its labels and edges."""
    entries = [entry for part in batches(frames, torch.float32) for entry in part.to_data_list()]
    for entry, frame in zip(entries, frames, strict=True):
        entry.energy = torch.tensor([frame.get_potential_energy()], dtype=torch.float64)
        entry.forces = torch.tensor(frame.get_forces(), dtype=torch.float32)
        graph = build_graph(entry, CUTOFF)
        entry.edge_index = torch.stack([graph.sender, graph.receiver])
        entry.edge_cutoff = torch.full((1,), CUTOFF)
    return Batch.from_data_list(entries)


def trained(frames: Sequence[Atoms], seed: int, steps: int) -> Forces:
    """Of energies and forces; the step size falls to zero."""
    torch.manual_seed(seed)
    heads = [GraphScalar("energy")]
    model = Forces(EGNN(heads, width=32, layers=1, cutoff=CUTOFF, edge_inputs=["bessel"]))
    data = labelled(frames)
    model.fit_heads(data)
    scale = float(data.forces.square().mean().sqrt())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    entries = data.to_data_list()
    order = np.random.default_rng(seed)
    for _ in range(steps):
        batch = Batch.from_data_list([entries[place] for place in order.permutation(len(entries))[:BATCH]])
        outputs = model(batch)
        energies = (outputs["energy"] - batch.energy) / batch.ptr.diff()
        forces = outputs["forces"] - batch.forces
        loss = (10 * (energies / scale).square().mean() + (forces / scale).square().mean()).float()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def certain(model: Forces, frames: Sequence[Atoms]) -> Forces:
    """With the uncertainty of its last layer."""
    found = LastLayer(model.model).eval()
    data = labelled(frames)
    with torch.no_grad():
        outputs, features = found.features(data)
    errors = (outputs["energy"] - data.energy).numpy()
    chosen = slice(None, None, 5)
    fit = fit_last_layer(features.mT @ features, features[chosen], errors[chosen])
    found.set_covariance(features.mT @ features, fit.regularizer, fit.scale)
    return Forces(found)


def errors(model: Model, frames: Sequence[Atoms]) -> dict[str, float]:
    """Root mean squares, meV/atom and meV/Å."""
    data = labelled(frames)
    with torch.no_grad():
        outputs = model(data)
    energy = (outputs["energy"] - data.energy) / data.ptr.diff()
    forces = outputs["forces"] - data.forces
    return {
        "energy": 1000 * float(energy.square().mean().sqrt()),
        "forces": 1000 * float(forces.square().mean().sqrt()),
    }


def chosen(model: Model, pool: Sequence[Atoms], known: Sequence[Atoms], folder: Path) -> list[Atoms]:
    """By ``geoeq sample``."""
    save_checkpoint(model, folder / "model")
    write(folder / "pool.xyz", list(pool))
    write(folder / "known.xyz", list(known))
    picks = sample(
        folder / "model",
        [folder / "pool.xyz"],
        MORE,
        folder / "picks.xyz",
        Console(file=io.StringIO()),
        known=[folder / "known.xyz"],
    )
    return [pool[int(pick.info["source_frame"])] for pick in picks]


Choice = Callable[[Forces, list[Atoms], list[Atoms], int, Path], list[Atoms]]


def choices(steps: int) -> dict[str, Choice]:
    """Name -> from a network and what it has learnt to the frames that are labelled next."""

    def at_random(model: Forces, pool: list[Atoms], known: list[Atoms], seed: int, folder: Path) -> list[Atoms]:
        places = np.random.default_rng(seed + len(known)).permutation(len(pool))
        seen = {frame.positions.tobytes() for frame in known}
        return [pool[place] for place in places if pool[place].positions.tobytes() not in seen][:MORE]

    def last_layer(model: Forces, pool: list[Atoms], known: list[Atoms], seed: int, folder: Path) -> list[Atoms]:
        return chosen(certain(model, known), pool, known, folder)

    def ensemble(model: Forces, pool: list[Atoms], known: list[Atoms], seed: int, folder: Path) -> list[Atoms]:
        others = [trained(known, 1000 * member + seed, steps) for member in (1, 2)]
        return chosen(Ensemble([model, *others]), pool, known, folder)

    return {"random": at_random, "last layer": last_layer, "ensemble": ensemble}


def measure(seed: int, steps: int, folder: Path) -> dict[str, Any]:
    """All choices from the same first frames: errors after each round, and how many hot frames were chosen."""
    begin = trajectory(COLD, FIRST, 10 * seed + 1)
    pool = [*trajectory(COLD, 200, 10 * seed + 2), *trajectory(HOT, 200, 10 * seed + 3)]
    test = {"300 K": trajectory(COLD, 50, 10 * seed + 4), "900 K": trajectory(HOT, 50, 10 * seed + 5)}
    hot = {frame.positions.tobytes() for frame in pool[200:]}
    first = trained(begin, seed, steps)
    found: dict[str, Any] = {}
    for name, choose in choices(steps).items():
        known, model = list(begin), first
        rounds: list[dict[str, Any]] = []
        for turn in range(ROUNDS + 1):
            row = {part: errors(model, frames) for part, frames in test.items()}
            count = sum(frame.positions.tobytes() in hot for frame in known)
            rounds.append({"labelled": len(known), "hot": count, **row})
            print(f"seed {seed}, {name}: {rounds[-1]}", flush=True)
            if turn < ROUNDS:
                known = [*known, *choose(model, pool, known, seed, folder)]
                model = trained(known, seed, steps)
        found[name] = rounds
    return found


def table(results: dict[str, Any]) -> list[str]:
    """Means over seeds, and in brackets the standard deviation of the seeds."""
    lines = ["# Active learning", "", results["about"], ""]
    for part, what, unit in (
        ("900 K", "forces", "meV/Å"),
        ("900 K", "energy", "meV/atom"),
        ("300 K", "forces", "meV/Å"),
        ("300 K", "energy", "meV/atom"),
    ):
        counts = [FIRST + MORE * turn for turn in range(ROUNDS + 1)]
        lines += [f"## RMSE of {what} at {part} [{unit}]", ""]
        lines += [
            f"| selection | {' | '.join(f'{count} labelled' for count in counts)} | 900 K frames among the selected |"
        ]
        lines += [f"|---|{'---:|' * (len(counts) + 1)}"]
        for name in results["seeds"][0]:
            values = np.array([[turn[part][what] for turn in seed[name]] for seed in results["seeds"]])
            cells = [
                f"{mean:.3g} ({deviation:.2g})"
                for mean, deviation in zip(values.mean(0), values.std(0, ddof=min(1, len(values) - 1)), strict=True)
            ]
            hot = np.mean([seed[name][-1]["hot"] for seed in results["seeds"]])
            lines.append(f"| {name} | {' | '.join(cells)} | {hot:.0f} of {MORE * ROUNDS} |")
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    about = (
        f"Measured {datetime.datetime.now(datetime.UTC):%Y-%m-%d} on {processor()}, {given.threads} thread(s), "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, geoeq {geoeq.__version__}, commit "
        f"{git_commit() or 'unknown'}; {given.steps} training steps."
    )
    seeds: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            seeds.append(measure(seed, given.steps, Path(folder)))
        results = {"about": f"{about} Seeds: {len(seeds)}.", "steps": given.steps, "seeds": seeds}
        write_results(given.output, results, "\n".join(table(results)))
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
