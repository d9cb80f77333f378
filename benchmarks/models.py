"""Times every network on the same molecules, and measures the memory that a training step takes.

    python benchmarks/models.py [--only EquiformerV2] [--repeats 5] [--threads 2] [--output FILE]

32 made-up molecules of 18 atoms with edges below 5 Å, given with the batch as geoeq's loader gives them. Each network
has a process of its own: forward without derivatives; forward and backward (derivatives of the squared sum of energies
by the parameters); and the training step of a potential (derivatives of energies and squared forces by the parameters),
for all but the sizes of OC20. Medians after one pass that is not counted. Sizes: the published one (preset "qm9", else
"oc20", else the defaults, always with a cutoff of 5 Å), and those for which there are times of the authors' codes.
Memory is the highest resident size of the process in those passes, less what it had after the imports. Equiformer and
the SE(3)-Transformer are timed once more with messages that are made without kernels (``plain.py``), in the same
process; FAENet also in frames, one at random and all eight. With --only the tables are printed and not written, unless
--output says where.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from plain import plain_messages
from torch_geometric.data import Batch, Data

import geoeq
import geoeq.models
from geoeq.environment import git_commit
from geoeq.graph import build_graph
from geoeq.models import FrameAveraging, GraphScalar, Model
from geoeq.models.symmetrized.frame_averaging import FrameKind

MOLECULES, ATOMS, CUTOFF = 32, 18, 5.0

#: Of the ball that the atoms of a molecule are in, Å; it gives 9260 edges, the authors' codes had 9256.
RADIUS = 3.05

#: Seconds for the passes of one median, and for one network altogether.
PATIENCE, LIMIT = 30.0, 600.0

#: Networks that are measured without kernels, too.
PLAIN = ("Equiformer", "SE3Transformer")

RESULTS = Path(__file__).parent / "results" / "models.md"

#: Sizes for which the authors' codes were timed: network, label, arguments, time of a forward and backward pass with
#: one thread on another machine of the same kind.
COMPARED: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("EGNN", "7 layers of 128", {"layers": 7, "width": 128}, "491 ms"),
    ("SE3Transformer", "4 layers of 32, degrees 0-2", {"layers": 4, "width": 32, "lmax": 2}, "7600 ms"),
    ("Equiformer", "6 layers of 128x0e+64x1e+32x2e", {"layers": 6}, "18 400 ms"),
    (
        "EquiformerV2",
        "4 layers of 128, lmax 4, mmax 2",
        {"layers": 4, "channels": 128, "lmax": 4, "mmax": 2},
        "36 000 ms or more, over 5 GB",
    ),
)


#: Networks that are measured in frames, too, as they are meant to be used.
FRAMED: dict[str, dict[FrameKind, str]] = {"FAENet": {"stochastic": "one frame at random", "full": "all eight frames"}}


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    network: str
    size: str
    preset: str | None
    arguments: dict[str, Any]
    authors: str = ""
    frames: FrameKind | None = None

    def build(self) -> Model:
        cls = getattr(geoeq.models, self.network)
        heads = [GraphScalar("energy")]
        arguments = {**self.arguments, "cutoff": CUTOFF}
        made: Model = cls(heads, **arguments) if self.preset is None else cls.preset(self.preset, heads, **arguments)
        return made if self.frames is None else FrameAveraging(made, frames=self.frames)


def cases() -> list[Case]:
    """The published size of every network, each followed by that of the authors' times, and by itself in frames."""
    found = []
    for name in (*geoeq.models.NETWORKS, *geoeq.models.COORDINATE_NETWORKS):
        presets = getattr(geoeq.models, name).PRESETS
        preset = next((preset for preset in ("qm9", "oc20") if preset in presets), None)
        found.append(Case(name, "defaults" if preset is None else f"preset {preset}", preset, {}))
        found += [Case(name, size, None, given, authors) for other, size, given, authors in COMPARED if other == name]
        last = found[-1]
        found += [
            replace(last, size=f"{last.size}, {words}", frames=kind) for kind, words in FRAMED.get(name, {}).items()
        ]
    return found


def molecules() -> Batch:
    """Atoms at random in a ball, none closer than 1 Å to another, with their edges."""
    generator = torch.Generator().manual_seed(0)
    elements = torch.tensor([1, 1, 1, 6, 6, 7, 8, 9])
    graphs = []
    for _ in range(MOLECULES):
        places: list[torch.Tensor] = []
        while len(places) < ATOMS:
            place = RADIUS * (2 * torch.rand(3, generator=generator) - 1)
            if place.norm() < RADIUS and all((place - other).norm() > 1.0 for other in places):
                places.append(place)
        graphs.append(Data(z=elements[torch.randint(8, (ATOMS,), generator=generator)], pos=torch.stack(places)))
    batch = Batch.from_data_list(graphs)
    graph = build_graph(batch, CUTOFF)
    batch.edge_index = torch.stack([graph.sender, graph.receiver])
    batch.edge_cutoff = torch.full((MOLECULES,), CUTOFF)
    return batch


def memory(key: str) -> float:
    """MB of this process: VmRSS now, VmHWM at the most (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(key)).split()[1]) / 1024


def median(run: Callable[[], None], repeats: int) -> float:
    """Milliseconds, after one pass that is not counted; no further pass begins after ``PATIENCE``."""
    run()
    times: list[float] = []
    while len(times) < repeats and sum(times) < PATIENCE:
        times.append(seconds(run))
    return 1e3 * statistics.median(times)


def seconds(run: Callable[[], None]) -> float:
    """Of one pass."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turns(run: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Milliseconds without and with kernels, in turns, as the speed of a machine changes.

    The first pass after one of the other kind is not counted: it finds the memory as that one left it.
    """
    plain: list[float] = []
    own: list[float] = []
    while len(own) < repeats and sum(plain) < PATIENCE:
        with plain_messages():
            run()
            plain.append(seconds(run))
        run()
        own.append(seconds(run))
    return 1e3 * statistics.median(plain), 1e3 * statistics.median(own)


def measure(case: Case, threads: int, repeats: int) -> dict[str, float]:
    """Everything about one network, in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest size starts anew
    before = memory("VmRSS")
    batch, model = molecules(), case.build()

    def forward() -> None:
        with torch.no_grad():
            model(batch)

    def both() -> None:
        model.zero_grad(set_to_none=True)
        model(batch)["energy"].square().sum().backward()

    def forces() -> None:
        model.zero_grad(set_to_none=True)
        batch.pos.requires_grad_()
        energy = model(batch)["energy"].sum()
        (force,) = torch.autograd.grad(energy, batch.pos, create_graph=True)
        (energy + force.square().sum()).backward(inputs=list(model.parameters()))

    found: dict[str, float] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    found["forward"] = median(forward, repeats)
    found["both"] = median(both, repeats)
    found["memory"] = memory("VmHWM") - before
    if case.preset != "oc20":
        Path("/proc/self/clear_refs").write_text("5")
        found["forces"] = median(forces, repeats)
        found["forces memory"] = memory("VmHWM") - before
        batch.pos.requires_grad_(False)
    if case.authors and case.network in PLAIN:
        for name, step in {"forward": forward, "both": both, "forces": forces}.items():
            found[f"plain {name}"], found[f"own {name}"] = in_turns(step, repeats)
        batch.pos.requires_grad_(False)
    if case.authors and threads != 1:
        torch.set_num_threads(1)
        found["one thread"] = median(both, repeats)
    elif case.authors:
        found["one thread"] = found["both"]
    return found


def measured_apart(script: str, arguments: list[str], threads: int, limit: float) -> dict[str, Any]:
    """What a script prints as JSON in its last line, in a new process; a failure is told as {"failure": reason}."""
    command = [sys.executable, "-W", "ignore", script, *arguments, "--threads", str(threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failure": f"takes longer than {limit:.0f} s altogether"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return {"failure": lines[-1] if lines else f"ended with status {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def row(case: Case, found: dict[str, Any]) -> str:
    """A line of Markdown."""
    if "failure" in found:
        return f"| {case.network} | {case.size} | failed: {found['failure']} |  |  |  |  |  |  | {case.authors} |"
    alone = f"{found['one thread']:.0f}" if "one thread" in found else ""
    step, most = (f"{found[key]:.0f}" if key in found else "" for key in ("forces", "forces memory"))
    return (
        f"| {case.network} | {case.size} | {found['parameters']:,} | {found['forward']:.0f} | {found['both']:.0f} | "
        f"{found['memory']:.0f} | {step} | {most} | {alone} | {case.authors} |"
    )


def comparison(case: Case, found: dict[str, Any]) -> str:
    """A line of Markdown: without and with kernels."""
    pairs = ((found[f"plain {name}"], found[f"own {name}"]) for name in ("forward", "both", "forces"))
    cells = " | ".join(f"{plain:.0f} -> {own:.0f} ({plain / own:.1f})" for plain, own in pairs)
    return f"| {case.network} | {case.size} | {cells} |"


def processor() -> str:
    """The name of the processor."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def write(path: Path | None, lines: list[str]) -> None:
    """What there is so far, if it is to be written at all."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_results(path: Path, results: dict[str, Any], text: str) -> None:
    """The numbers as .json and their tables as .md; the path is without an ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some networks, such as EGNN")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help=f"where to write the table ({RESULTS})")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(cases()[arguments.case], arguments.threads, arguments.repeats)))
        return
    known = dict.fromkeys(case.network for case in cases())
    for name in arguments.only or ():
        if name not in known:
            parser.error(f"There is no network '{name}'. Known: {', '.join(known)}.")
    chosen = [case for case in cases() if arguments.only is None or case.network in arguments.only]

    edges = molecules().num_edges
    lines = [
        "# Networks",
        "",
        f"{MOLECULES} molecules of {ATOMS} atoms, {edges} edges below {CUTOFF:g} Å ({edges / MOLECULES:.0f} per "
        "molecule), float32, one energy per",
        "molecule; each network in a separate process, medians of "
        f"{arguments.repeats} passes. Written by `python benchmarks/models.py` on {datetime.date.today()}:",
        f"{processor()}, {arguments.threads} threads, geoeq {geoeq.__version__} (commit {git_commit()}), "
        f"torch {torch.__version__}, Python {platform.python_version()}.",
        "",
        "| network | size | parameters | forward [ms] | forward and backward [ms] | peak memory [MB] | step of a "
        "potential [ms] | peak memory [MB] | forward and backward, 1 thread [ms] | authors' code, 1 thread, another "
        "machine |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    output = arguments.output or (RESULTS if arguments.only is None else None)
    print("\n".join(lines))
    compared = []
    for case in chosen:
        given = ["--case", str(cases().index(case)), "--repeats", str(arguments.repeats)]
        found = measured_apart(__file__, given, arguments.threads, LIMIT)
        lines.append(row(case, found))
        if "plain forward" in found:
            compared.append(comparison(case, found))
        print(lines[-1], flush=True)
        write(output, lines)
    lines += [
        "",
        "Authors' times are for a forward and backward pass on such a batch (9256 edges), on another machine of the",
        "same type: compare them only roughly, with the column for 1 thread. Memory is the peak resident size during",
        "these passes, including parameters and batch, minus the size after the imports.",
        "",
        "Messages without kernels (e3nn's tensor product of all edges at once; the weights of every edge as an",
        "array) and with kernels, alternating in one process:",
        "",
        "| network | size | forward [ms] | forward and backward [ms] | step of a potential [ms] |",
        "|---|---|---:|---:|---:|",
        *compared,
    ]
    print("\n".join(compared))
    write(output, lines)


if __name__ == "__main__":
    main()
