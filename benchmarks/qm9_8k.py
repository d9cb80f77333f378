"""Energy, HOMO, LUMO and the dipole vector of 8000 molecules of QM9, learnt by EGNN and an SE(3)-Transformer.

    python benchmarks/qm9_8k.py --data FOLDER [--minutes 4] [--threads 1] [--only EGNN] [--output STEM]

FOLDER holds ``qm9_8k_rimp2_tzvp.npz``: geometries of QM9 recomputed with RI-MP2/def2-TZVP (energy and relaxed dipole;
orbital energies of Hartree-Fock), from ppqm/dataset-qm9. It has no licence and does not come with geoeq. Errors are not
comparable with those published for QM9, which are of B3LYP.

6400, 800 and 800 molecules at random with seed 0. Each network learns the four targets at once, for the same time; the
weights of the smallest validation loss are measured on the test set. Writes results/qm9_8k.json and .md; with --only
they are printed and not written, unless --output says where. Called again with the same settings it goes on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import yaml
from models import processor, write_results
from rich.console import Console

import geoeq
from geoeq.data import Records, load
from geoeq.environment import git_commit
from geoeq.models.checkpoint import load_checkpoint
from geoeq.training.evaluation.results import predict_parts
from geoeq.training.parsing import read_recipe
from geoeq.training.run import train
from geoeq.units import format_number

FILE = "qm9_8k_rimp2_tzvp.npz"
RESULTS = Path(__file__).parent / "results" / "qm9_8k"

#: Target -> column, unit of the file, unit of the table.
TARGETS = {
    "energy": ("energy_rimp2", "Ha", "meV"),
    "homo": ("homo_hf", "Ha", "meV"),
    "lumo": ("lumo_hf", "Ha", "meV"),
    "dipole": ("dipole_mp2_relaxed_au", "e·a0", "D"),
}

SPLIT: dict[str, Any] = {"method": "permutation", "seed": 0, "sizes": {"train": 6400, "valid": 800, "test": 800}}

#: Both give the heads scalars and vectors, of which the dipole is made.
NETWORKS: dict[str, dict[str, Any]] = {
    "EGNN": {"width": 64, "layers": 4, "cutoff": 5.0, "edge_inputs": ["bessel"]},
    "SE3Transformer": {
        "width": 16,
        "layers": 3,
        "lmax": 1,
        "attention_heads": 4,
        "cutoff": 5.0,
        "irreps_out": "48x0e + 16x1o",
    },
}

TRAINING: dict[str, Any] = {
    "loss": {"name": "mae"},
    "optimizer": {"name": "adam", "lr": 2e-3},
    "schedule": {"name": "cosine", "warmup_epochs": 0.5},
    "batch_size": 32,
    "ema": 0.995,
    "gradient_clip": 10.0,
    "seed": 0,
}


class Reader:
    """Reads the npz file: ``n_atoms`` [G], ``z`` [N], ``pos`` [N, 3] Å, and a column for each target."""

    version: ClassVar[int] = 1

    def read(self, files: Mapping[str, Path]) -> Records:
        """The molecules of the one file."""
        (path,) = files.values()
        with np.load(path, allow_pickle=False) as arrays:
            return Records(
                positions=arrays["pos"],
                ptr=np.concatenate([[0], np.cumsum(arrays["n_atoms"], dtype=np.int64)]),
                numbers=arrays["z"],
                columns={column: arrays[column] for column, _, _ in TARGETS.values()},
            )


def write_card(data: Path, folder: Path) -> Path:
    """A card for the file in ``data``."""
    card = {
        "name": "qm9_8k",
        "title": "8000 molecules of QM9 with RI-MP2/def2-TZVP",
        "reader": f"{Path(__file__).stem}.Reader",
        "licence": "none",
        "citation": "ppqm/dataset-qm9",
        "sources": [{"file": str((data / FILE).resolve()), "shipped": True}],
        "targets": {
            name: {"column": column, "unit": unit, "report": report} for name, (column, unit, report) in TARGETS.items()
        },
        "default_target": "energy",
        "splits": {"random": SPLIT},
        "default_split": "random",
    }
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(card, sort_keys=False), encoding="utf-8")
    return path


def run_network(name: str, card: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one network, and measure it."""
    folder = arguments.folder / f"{name}-{arguments.minutes:g}min"
    settings = {
        "dataset": str(card),
        "target": list(TARGETS),
        "model": {"class_path": f"geoeq.models.{name}", "init_args": NETWORKS[name]},
        **TRAINING,
        "budget": 60 * arguments.minutes,
        "threads": arguments.threads,
        "device": "cpu",
        "run": str(folder),
    }
    file = arguments.folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    results = train(read_recipe(file), file, Console(width=140), again=arguments.again)
    done = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    best = {entry.target: [row for row in entry.rows if row.kind == "baseline"][-1] for entry in results}
    return {
        "parameters": done["parameters"],
        "epochs": done["epochs"],
        "training seconds": done["budget_seconds"],
        "MAE": {entry.target: entry.model.errors["test"]["MAE"] for entry in results},
        "dipole error": vector_error(folder, card),
        "baselines": {name: {"name": row.name, "MAE": row.errors["test"]["MAE"]} for name, row in best.items()},
    }


def vector_error(folder: Path, card: Path) -> float:
    """The mean length of the error of the dipole on the test set, in the unit of the table: it does not turn."""
    model, _ = load_checkpoint(folder)
    dataset = load(str(card))
    parts = {"test": dataset.split()["test"]}
    guess, truth = predict_parts(model, dataset, parts, ["dipole"], device=torch.device("cpu"))["dipole"]["test"]
    return float(np.linalg.norm(guess - truth, axis=-1).mean() * dataset.card.targets["dipole"].to_report("dipole"))


def markdown(results: dict[str, Any]) -> str:
    """The table, with where it comes from."""
    made, networks = results["made"], results["networks"]
    threads = f"{made['threads']} thread{'s' * (made['threads'] > 1)}"
    heading = [f"{name} MAE [{report}]" for name, (_, _, report) in TARGETS.items()]
    sizes = " / ".join(str(size) for size in SPLIT["sizes"].values())
    lines = [
        "# 8000 molecules of QM9",
        "",
        f"Written by `python benchmarks/qm9_8k.py --minutes {made['minutes']:g}` on {made['date']}: "
        f"{made['processor']}, {threads}, geoeq {made['geoeq']} (commit {made['commit']}), "
        f"torch {made['torch']}, Python {made['python']}.",
        f"RI-MP2/def2-TZVP energies and dipoles, HOMO and LUMO of Hartree-Fock; {sizes} molecules for "
        "training, validation and test (seed 0); one network for all four targets.",
        "Errors are those of the test set. The MAE of the dipole is the mean over its components; the last column",
        "is the mean length of the error vector. Such a short training does not show the",
        "final accuracy of a network.",
        "",
        f"| network | parameters | epochs | training [s] | {' | '.join(heading)} | dipole, length of error [D] |",
        f"|---|---:|---:|---:|{'---:|' * (len(heading) + 1)}",
    ]
    for name, found in networks.items():
        cells = [f"{found['parameters']:,}", str(found["epochs"]), f"{found['training seconds']:.0f}"]
        cells += [format_number(value) for value in [*found["MAE"].values(), found["dipole error"]]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    baselines = next(iter(networks.values()))["baselines"]
    cells = [f"{format_number(entry['MAE'])} ({entry['name']})" for entry in baselines.values()]
    lines.append(f"| best guess without a network |  |  |  | {' | '.join(cells)} |  |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=f"where {FILE} is; without it nothing is done")
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, for each network")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=tuple(NETWORKS), help="one network")
    parser.add_argument("--again", action="store_true", help="train anew what is finished")
    parser.add_argument("--folder", type=Path, default=Path("runs/qm9_8k"), help="of the runs")
    parser.add_argument("--output", type=Path, help=f"the .json and .md to write, without the ending ({RESULTS})")
    arguments = parser.parse_args()
    if arguments.data is None:
        print(f"Nothing is done: say with --data in which folder {FILE} is; it does not come with geoeq.")
        return
    if not (arguments.data / FILE).is_file():
        parser.error(f"There is no {FILE} in {arguments.data}.")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    card = write_card(arguments.data, arguments.folder)
    made = {
        "date": str(datetime.date.today()),
        "processor": processor(),
        "threads": arguments.threads,
        "minutes": arguments.minutes,
        "geoeq": geoeq.__version__,
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    chosen = [name for name in NETWORKS if arguments.only in (None, name)]
    results = {"made": made, "networks": {name: run_network(name, card, arguments) for name in chosen}}
    output = arguments.output or (RESULTS if arguments.only is None else None)
    if output is not None:
        write_results(output, results, markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
