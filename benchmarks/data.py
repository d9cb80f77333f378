"""Times the data pipeline beside PyTorch Geometric's and ASE's, and writes ``results/data.json`` and ``data.md``.

    python benchmarks/data.py [--quick] [--output STEM]

- Loader: molecules a second of geoeq's loader and of PyTorch Geometric's own DataLoader over a list of Data, for 20 000
  molecules of the size of QM9's, edges at 5 Å, batches of 96, shuffled. The molecules are those of QM7 that have 17
  atoms or more (18.2 on average, QM9's have 18.0), repeated with jitter. In seconds of one core.
- Reading: the same structures from geoeq's memory-mapped cache, in batches at random, with 0, 1 and 2 worker processes;
  from PyG's InMemoryDataset and OnDiskDataset with its DataLoader; and with ASE from extended xyz, its database and a
  trajectory, one by one. By the clock. Once those molecules, with one number each, and once periodic slabs (the
  relaxation of 97 atoms that comes with OC20's card, repeated with jitter), with energies and forces.
- Waiting: for how much of the time EGNN, in training, waits for its batches.
- How long a cache of 130 000 molecules takes to open, and the published N-body set to simulate.

What is read is in the page cache: disks are not compared. With --quick a tenth of the structures, to try the script.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
import torch_geometric
from data_rivals import InMemory, OnDisk, Reading, as_atoms, as_list, ase_readings, pyg_loader
from data_structures import qm9_sized, slabs
from data_tables import markdown
from data_waiting import time_waiting, unkept, workers_label
from models import processor, write_results
from torch_geometric.data import Batch

from geoeq.data.dataset import Dataset
from geoeq.data.nbody import draw
from geoeq.data.nbody_simulation import simulate
from geoeq.environment import git_commit
from geoeq.geometry.neighbors import radius_edges

MOLECULES, MANY, CUTOFF, BATCH = 20_000, 130_000, 5.0, 96
READ_MOLECULES, READ_SLABS, SLABS_BATCH = 4000, 1000, 32
#: How often a loader goes through these, so that it runs for longer than its workers take to start.
PASSES = 5
KEPT, PRECOMPUTED = "geoeq, edges kept (the default)", "PyG DataLoader, list of Data, edges precomputed"
RESULTS = Path(__file__).parent / "results" / "data"


def seconds(epoch: Reading, repeats: int = 5) -> float:
    """The best of several epochs, in seconds of one core, which other programs on the machine disturb least."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        for _batch in epoch():
            pass
        times.append(time.process_time() - start)
    return min(times)


def per_second(reading: Reading, repeats: int) -> float:
    """Structures a second by the clock, after the first batch: the start of worker processes does not count."""
    rates = []
    for _ in range(repeats):
        found = iter(reading())
        next(found)
        start = time.perf_counter()
        count = sum(getattr(batch, "num_graphs", 1) for batch in found)
        rates.append(count / (time.perf_counter() - start))
    return max(rates)


class WithEdges:
    """PyG's collation followed by the search for edges, batch by batch."""

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterable[Batch]:
        for batch in self.loader:
            edges = radius_edges(batch.pos, batch.ptr, CUTOFF)
            batch.edge_index = torch.stack([edges.sender, edges.receiver])
            yield batch


def time_loaders(count: int, folder: Path) -> dict[str, Any]:
    """Molecules with edges, one target, no workers."""
    dataset = qm9_sized(count, folder)
    places = np.arange(count)
    options: dict[str, Any] = {"shuffle": True, "targets": ["gap"]}
    start = time.process_time()
    dataset.keep_edges(CUTOFF)
    found = time.process_time() - start
    edges = dataset.batch(range(min(1000, count)), cutoff=CUTOFF)

    # Each loader is timed with only its own data in memory: objects that are not its own would slow it down.
    rows = {
        "geoeq, no edges": seconds(lambda: dataset.loader(places, BATCH, **options)),
        "geoeq, edges found for each batch": seconds(lambda: unkept(dataset, places, BATCH, CUTOFF, ["gap"])),
        KEPT: seconds(lambda: dataset.loader(places, BATCH, cutoff=CUTOFF, **options)),
    }
    data = as_list(dataset, ["gap"])
    rows["PyG DataLoader, no edges"] = seconds(lambda: pyg_loader(data, BATCH))
    rows["PyG DataLoader, edges found for each batch"] = seconds(lambda: WithEdges(pyg_loader(data, BATCH)))
    data = as_list(dataset, ["gap"], CUTOFF)
    rows[PRECOMPUTED] = seconds(lambda: pyg_loader(data, BATCH))
    return {
        "count": count,
        "atoms": float(np.diff(dataset.ptr).mean()),
        "edges": edges.num_edges / edges.num_graphs,
        "cutoff": CUTOFF,
        "batch": BATCH,
        "seconds": rows,
        "ratio": rows[PRECOMPUTED] / rows[KEPT],
        "finding edges": found,
    }


def time_reading(dataset: Dataset, targets: list[str], batch_size: int, folder: Path) -> dict[str, Any]:
    """The same structures as geoeq, PyG and ASE read them, without edges: structures a second."""
    count = len(dataset)
    data = as_list(dataset, targets)
    readings = ase_readings([as_atoms(structure, targets[0]) for structure in data], folder)
    rates = {name: per_second(reading, 2) for name, reading in readings.items()}
    fastest = max(rates, key=lambda name: rates[name])
    kinds = {"PyG InMemoryDataset": InMemory(data), "PyG OnDiskDataset (SQLite)": OnDisk(folder / "disk", data)}
    del data
    for kind, held in kinds.items():
        for workers in (0, 1, 2):
            reading = partial(pyg_loader, held, batch_size, workers, PASSES * count)
            rates[workers_label(kind, workers)] = per_second(reading, 2)
    places = np.resize(np.arange(count), PASSES * count)
    for workers in (0, 1, 2):
        reading = partial(dataset.loader, places, batch_size, shuffle=True, targets=targets, workers=workers)
        rates[workers_label("geoeq", workers)] = per_second(reading, 5)
    atoms = float(np.diff(dataset.ptr).mean())
    own = rates[workers_label("geoeq", 0)]
    return {
        "count": count,
        "passes": PASSES,
        "atoms": atoms,
        "batch": batch_size,
        "targets": targets,
        # An element of one byte, positions and forces as float32, and an energy.
        "bytes": atoms * (13 + 12 * ("forces" in targets)) + 4,
        "rates": rates,
        "fastest of ASE": fastest,
        "times ASE": own / rates[fastest],
        "times PyG": own / max(rates[workers_label(kind, n)] for kind in kinds for n in (0, 1, 2)),
    }


def time_opening(count: int, folder: Path) -> dict[str, float]:
    """A large cache."""
    many = qm9_sized(count, folder)
    size = sum(path.stat().st_size for path in many.folder.iterdir()) / 1e6
    start = time.perf_counter()
    opened = Dataset.open(many.card, many.folder)
    opened.batch([0, count - 1])
    opening = time.perf_counter() - start
    start = time.process_time()
    Dataset.open(many.card, many.folder, verify=True)
    return {"count": count, "MB": size, "opening": opening, "verifying": time.process_time() - start}


def time_simulation(count: int) -> dict[str, float]:
    """The published N-body set."""
    start = time.process_time()
    systems = draw("charged", 5, count, np.random.RandomState(43))
    simulate("charged", systems.positions, systems.velocities, systems.couplings, states=49)
    return {"count": count, "seconds": time.process_time() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the structures; nothing is written")
    parser.add_argument("--output", type=Path, help=f"the .json and .md to write, without the ending ({RESULTS})")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module=r"torch\.utils\.data")  # on machines with one core, of workers
    share = 10 if arguments.quick else 1
    made = {
        "date": str(date.today()),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch-geometric": torch_geometric.__version__,
        "ase": ase.__version__,
        "numpy": np.__version__,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        molecules, periodic = qm9_sized(READ_MOLECULES // share, folder), slabs(READ_SLABS // share, folder)
        results: dict[str, Any] = {
            "made": made,
            "loader": time_loaders(MOLECULES // share, folder),
            "reading": {
                "molecules": time_reading(molecules, ["gap"], BATCH, folder / "molecules"),
                "slabs": time_reading(periodic, ["energy", "forces"], SLABS_BATCH, folder / "slabs"),
            },
            "waiting": time_waiting(molecules, periodic, 15.0 / share),
            "opening": time_opening(MANY // share, folder),
        }
    results["simulation"] = time_simulation(14_000 // share)
    output = arguments.output or (None if arguments.quick else RESULTS)
    if output is not None:
        write_results(output, results, markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
