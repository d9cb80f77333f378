"""Symmetry built in, wrapped around a plain network, learned from turned data, or absent: error, cost and accuracy.

    python benchmarks/symmetry.py [--budget 300] [--tasks nbody qm7] [--only frames] [--threads 1] [--output STEM]

Each row of a task is a recipe of that task, or one whose network is put into a wrapper. All are trained for the same
time, one after the other, as ``geoeq compare`` does it, and then measured in this process:

- symmetry: largest error of outputs under random rotations and reflections, of the trained weights in float64 on 64
  test structures: that of ``geoeq.symmetry.equivariance_errors``, and in units of the target;
- cost: medians of a forward pass without derivatives (evaluation) and of a training step (forward and backward) on the
  batch of the recipe, in float32, and how many copies of a structure the network inside sees in each;
- accuracy: error on the test set.

Rows whose wrapper this version of geoeq does not have are left out, and named. Writes results/symmetry.json and .md;
with --only they are printed and not written, unless --output says where. Called again with the same budget it goes on.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from models import median, processor
from rich.console import Console
from symmetry_rows import ROWS, Row
from torch import nn
from torch_geometric.data import Batch

import geoeq
from geoeq.data import load
from geoeq.data.card import DIMENSIONLESS
from geoeq.environment import git_commit
from geoeq.models import Model
from geoeq.models.checkpoint import load_checkpoint
from geoeq.resources import share
from geoeq.symmetry import equivariance_errors
from geoeq.training.evaluation.comparison import compare_recipes
from geoeq.training.evaluation.comparison_table import Comparison, Contender
from geoeq.training.parsing import read_recipe
from geoeq.units import format_number

RESULTS = Path(__file__).parent / "results" / "symmetry"
#: Structures on which symmetry is measured, and group elements for each symmetry.
STRUCTURES, SAMPLES = 64, 4


def write_recipes(task: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """A recipe for each row, of the row's name."""
    files = []
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        source = share("recipes") / task / f"{row.recipe}.yaml"
        settings = read_recipe(source).to_dict()
        settings["model"] = row.build(settings["model"])
        settings["loss"]["auxiliary"] = dict(row.auxiliary)
        files.append(folder / f"{row.slug}.yaml")
        files[-1].write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    return files


def innermost(model: nn.Module) -> nn.Module:
    """The network in a wrapper, or the model itself."""
    inside = getattr(model, "model", None)
    return innermost(inside) if isinstance(inside, nn.Module) else model


def copies(model: Model, batch: Batch, run: Callable[[], object]) -> float:
    """How many structures the innermost network sees for each that is given."""
    seen: list[int] = []

    def count(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(len(arguments[0].ptr) - 1)

    handle = innermost(model).register_forward_pre_hook(count)
    run()
    handle.remove()
    return sum(seen) / batch.num_graphs


def measure(folder: Path, repeats: int) -> dict[str, float]:
    """Symmetry and cost of a trained model."""
    model, meta = load_checkpoint(folder)
    dataset = load(meta["data"]["name"], sample=meta["data"]["sample"])
    split = dataset.split(meta["data"]["split"])

    def batch_of(part: str, size: int) -> Batch:
        dtype = next(model.parameters()).dtype
        return next(iter(dataset.loader(split[part][:size], size, cutoff=model.cutoff, targets=[], dtype=dtype)))

    model.eval()
    batch = batch_of("train", meta["recipe"]["batch_size"])
    torch.manual_seed(0)

    def forward() -> None:
        with torch.no_grad():
            model(batch)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        torch.stack([value.square().sum() for value in model(batch).values()]).sum().backward()

    found = {"forward": median(forward, repeats), "copies": copies(model, batch, forward)}
    model.train()
    found |= {"step": median(step, repeats), "training copies": copies(model, batch, step)}
    model.eval().double()
    (target,) = meta["targets"]
    batch = batch_of("test", STRUCTURES)
    with torch.no_grad():
        largest = float(model(batch)[target].abs().max()) * dataset.card.targets[target].to_report(target)
    errors = equivariance_errors(model, batch, symmetries=("rotation", "reflection"), samples=SAMPLES)
    for symmetry in ("rotation", "reflection"):
        found[f"relative {symmetry}"] = errors[symmetry, target]
        found[symmetry] = errors[symmetry, target] * largest
    return found


def run_task(task: str, rows: Sequence[Row], arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and measure the rows of a task."""
    known = [row for row in rows if row.missing() is None]
    left_out = {row.name: str(row.missing()) for row in rows if row.missing() is not None}
    folder = arguments.folder / f"{task}-{arguments.budget:g}s"
    files = write_recipes(task, known, folder / "recipes")
    settings = [f"threads={arguments.threads}", "device=cpu", f"sample={str(arguments.sample).lower()}"]
    comparison = compare_recipes(
        files, arguments.budget, Console(width=160), settings=settings, folder=folder / "runs", again=arguments.again
    )
    torch.set_num_threads(arguments.threads)
    (target,) = comparison.units
    report = load(comparison.dataset, sample=comparison.sample).card.targets[target].report
    entries = []
    for row, contender in zip(known, comparison.contenders, strict=True):
        entry = {"name": row.name, "symmetry": row.symmetry}
        entry |= trained(contender, target)
        if not contender.failure:
            entry |= measure(folder / "runs" / row.slug, arguments.repeats)
        entries.append(entry)
    return {
        "title": comparison.title,
        "measure": comparison.measure(target),
        "unit": "" if report == DIMENSIONLESS else report,
        "left out": left_out,
        "baseline": baseline(comparison, target),
        "rows": entries,
    }


def trained(contender: Contender, target: str) -> dict[str, Any]:
    """What training came to."""
    if contender.failure:
        return {"failure": contender.failure}
    counts = {"parameters": contender.parameters, "epochs": contender.epochs, "seconds": contender.training_seconds}
    return counts | {"error": contender.errors[target]}


def baseline(comparison: Comparison, target: str) -> dict[str, Any] | None:
    """The best guess that needs no network."""
    if not comparison.finished:
        return None
    name, error = comparison.finished[0].baselines[target]
    return {"name": name, "error": error}


def table(task: dict[str, Any]) -> list[str]:
    """Lines of Markdown; times also as multiples of those of the plain GNN, where it is there."""
    unit = f" [{task['unit']}]" if task["unit"] else ""
    heading = [
        "network",
        "symmetry",
        f"rotation{unit}",
        f"reflection{unit}",
        "copies, training / evaluation",
        "step [ms]",
    ]
    heading += ["forward [ms]", "epochs", f"test {task['measure']}"]
    plain = next((row for row in task["rows"] if row["name"] == "GNN" and "step" in row), None)
    lines = [f"| {' | '.join(heading)} |", "|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for row in task["rows"]:
        if "failure" in row:
            lines.append(f"| {row['name']} | {row['symmetry']} | failed: {row['failure']} |  |  |  |  |  |  |")
            continue
        times = []
        for key in ("step", "forward"):
            factor = f" ({row[key] / plain[key]:.1f})" if plain is not None else ""
            times.append(f"{row[key]:.3g}{factor}")
        seen = f"{row['training copies']:.3g} / {row['copies']:.3g}"
        cells = [row["name"], row["symmetry"], f"{row['rotation']:.0e}", f"{row['reflection']:.0e}", seen, *times]
        lines.append(f"| {' | '.join([*cells, str(row['epochs']), format_number(row['error'])])} |")
    if task["baseline"]:
        last = format_number(task["baseline"]["error"])
        lines.append(f"| {task['baseline']['name']} |  |  |  |  |  |  |  | {last} |")
    return lines


def markdown(results: dict[str, Any]) -> str:
    """All tables, with where they come from."""
    made = results["made"]
    lines = [
        "# Symmetry: built in, wrapped, learned",
        "",
        f"Written by `python benchmarks/symmetry.py` on {made['date']}: {made['processor']}, {made['threads']} "
        f"threads, geoeq {made['geoeq']} (commit {made['commit']}), torch {made['torch']}. Every row had "
        f"{made['budget']:g} s of training.",
        "Errors under rotation and reflection are maxima in float64. Times are medians on a batch of the recipe; the",
        "factor in parentheses is relative to the plain GNN.",
    ]
    for task in results["tasks"].values():
        lines += ["", f"## {task['title']}", "", *table(task)]
        if task["left out"]:
            names = ", ".join(f"{name} ({wrapper})" for name, wrapper in task["left out"].items())
            lines += ["", f"Left out, as this version does not have it: {names}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=300.0, metavar="SECONDS", help="of training, for each row")
    parser.add_argument("--tasks", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--only", metavar="TEXT", help="rows with this in their names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sample", action="store_true", help="the records that come with geoeq, to try the script")
    parser.add_argument("--again", action="store_true", help="train anew what is finished")
    parser.add_argument("--folder", type=Path, default=Path("runs/symmetry"), help="of the runs")
    parser.add_argument("--output", type=Path, help=f"the .json and .md to write, without the ending ({RESULTS})")
    arguments = parser.parse_args()
    output = arguments.output or (RESULTS if arguments.only is None else None)

    chosen = {
        task: [row for row in ROWS[task] if (arguments.only or "").lower() in row.name.lower()]
        for task in arguments.tasks
    }
    if not any(chosen.values()):
        parser.error(f"No row has '{arguments.only}' in its name.")
    made = {
        "date": str(datetime.date.today()),
        "processor": processor(),
        "threads": arguments.threads,
        "budget": arguments.budget,
        "geoeq": geoeq.__version__,
        "commit": git_commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    results: dict[str, Any] = {"made": made, "tasks": {}}
    for task, rows in chosen.items():
        if rows:
            results["tasks"][task] = run_task(task, rows, arguments)
        if output is not None:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.with_suffix(".json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
            output.with_suffix(".md").write_text(markdown(results), encoding="utf-8")
    print(markdown(results))


if __name__ == "__main__":
    main()
