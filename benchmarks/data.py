"""Times the data pipeline and writes ``results/data.md`` beside this file.

Loader: molecules a second of geoeq's loader and of PyTorch Geometric's own DataLoader over a list of Data, for 20 000
molecules of the size of QM9's, edges at 5 Å, batches of 96, shuffled. The molecules are those of QM7 that have 17 atoms
or more (18.2 on average, QM9's have 18.0), repeated with jitter. Also: how long a cache of 130 000 molecules takes to
open, and the published N-body set to simulate. Run with: python benchmarks/data.py
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
import torch_geometric
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

import geoeq.data
from geoeq.data.dataset import Dataset
from geoeq.data.nbody import draw
from geoeq.data.simulation import simulate
from geoeq.data.store import write_store
from geoeq.neighbors import radius_edges

MOLECULES, MANY, CUTOFF, BATCH = 20_000, 130_000, 5.0, 96
SMALLEST, TARGET = 17, "atomization_energy"
KEPT, PRECOMPUTED = "geoeq, edges kept (the default)", "PyG DataLoader, list of Data, edges precomputed"
RESULTS = Path(__file__).parent / "results" / "data.md"


def qm9_sized(count: int, folder: Path) -> Dataset:
    """A data set of ``count`` molecules in a cache of its own."""
    source = geoeq.data.load("qm7", root=folder)
    counts = np.diff(source.ptr)
    chosen = np.resize(np.flatnonzero(counts >= SMALLEST), count)
    rows = np.concatenate([np.arange(source.ptr[g], source.ptr[g + 1]) for g in chosen])
    jitter = np.random.default_rng(0).normal(scale=0.02, size=(len(rows), 3))
    arrays = {
        "positions": source.positions[rows] + jitter,
        "numbers": source.numbers[rows],
        "ptr": np.concatenate([[0], np.cumsum(counts[chosen])]),
        # As many columns as QM9 has.
        **{f"target.{name}": source.targets[TARGET][chosen] for name in geoeq.data.load_card("qm9").targets},
    }
    path = folder / f"molecules-{count}"
    write_store(path, arrays, {})
    return Dataset.open(replace(source.card, name="qm9-sized"), path)


def as_list(dataset: Dataset, edges: bool) -> list[Data]:
    """The same molecules as PyG would hold them."""
    whole = dataset.batch(range(len(dataset)), cutoff=CUTOFF if edges else None, targets=["gap"])
    names = ("z", "pos", "gap", "edge_index") if edges else ("z", "pos", "gap")
    return [Data(**{name: data[name].clone() for name in names}) for data in whole.to_data_list()]


def seconds(epoch: Callable[[], Iterable[object]], repeats: int = 5) -> float:
    """The best of several epochs, in seconds of one core, which other programs on the machine disturb least."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _batch in epoch():
            pass
        times.append(time.process_time() - start)
    return min(times)


class WithEdges:
    """PyG's collation followed by the search for edges, batch by batch."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterable[Batch]:
        for batch in self.loader:
            edges = radius_edges(batch.pos, batch.ptr, CUTOFF)
            batch.edge_index = torch.stack([edges.sender, edges.receiver])
            yield batch


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = qm9_sized(MOLECULES, folder)
        places = np.arange(MOLECULES)
        options = {"shuffle": True, "targets": ["gap"]}

        start = time.process_time()
        dataset.keep_edges(CUTOFF)
        found = time.process_time() - start
        fresh = Dataset.open(dataset.card, dataset.folder)
        sizes = np.diff(dataset.ptr)
        edges = dataset.batch(range(1000), cutoff=CUTOFF).num_edges / 1000

        def on_the_fly() -> Iterable[Batch]:
            for chosen in fresh.loader(places, BATCH, **options).sampler:
                yield fresh.batch(chosen.places, cutoff=CUTOFF, targets=["gap"])

        # Each loader is timed with only its own data in memory: objects that are not its own would slow it down.
        rows = {
            "geoeq, no edges": seconds(lambda: dataset.loader(places, BATCH, **options)),
            "geoeq, edges found for each batch": seconds(on_the_fly),
            KEPT: seconds(lambda: dataset.loader(places, BATCH, cutoff=CUTOFF, **options)),
        }
        data = as_list(dataset, edges=False)
        rows["PyG DataLoader, no edges"] = seconds(lambda: DataLoader(data, BATCH, shuffle=True))
        rows["PyG DataLoader, edges found for each batch"] = seconds(
            lambda: WithEdges(DataLoader(data, BATCH, shuffle=True))
        )
        data = as_list(dataset, edges=True)
        rows[PRECOMPUTED] = seconds(lambda: DataLoader(data, BATCH, shuffle=True))
        ratio = rows[PRECOMPUTED] / rows[KEPT]

        many = qm9_sized(MANY, folder)
        size = sum(path.stat().st_size for path in many.folder.iterdir()) / 1e6
        start = time.perf_counter()
        opened = Dataset.open(many.card, many.folder)
        opened.batch([0, MANY - 1])
        opening = time.perf_counter() - start
        start = time.process_time()
        Dataset.open(many.card, many.folder, verify=True)
        verifying = time.process_time() - start

    start = time.process_time()
    systems = draw("charged", 5, 14_000, np.random.RandomState(43))
    simulate("charged", systems.positions, systems.velocities, systems.couplings, states=49)
    simulating = time.process_time() - start

    lines = [
        "# Data pipeline",
        "",
        f"Written by `python benchmarks/data.py` on {date.today()}: {platform.processor() or platform.machine()}, "
        f"{os.cpu_count()} cores (one thread used), Python {platform.python_version()}, torch {torch.__version__}, "
        f"torch-geometric {torch_geometric.__version__}, numpy {np.__version__}.",
        "",
        f"Loader: {MOLECULES} molecules of {sizes.mean():.1f} atoms and {edges:.0f} edges (within {CUTOFF} Å) on "
        f"average, batches of {BATCH}, shuffled, one target, no workers; the best of five epochs, in seconds of one "
        "core.",
        "",
        "| loader | molecules a second | an epoch |",
        "|---|---:|---:|",
        *[f"| {name} | {MOLECULES / time_taken:,.0f} | {time_taken:.2f} s |" for name, time_taken in rows.items()],
        "",
        f"With edges, geoeq's loader yields **{ratio:.1f} times** the molecules a second of PyG's with precomputed "
        f"edges. Finding the edges of all {MOLECULES} molecules, once, took {found:.1f} s.",
        "",
        f"Opening the cache of {MANY} molecules ({size:.0f} MB, 17 targets) and reading the first and last: "
        f"{opening * 1000:.1f} ms; comparing every checksum: {verifying * 1000:.0f} ms.",
        "",
        f"Simulating the 14 000 charged systems of the published N-body set, 5000 steps each: {simulating:.1f} s.",
        "",
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
