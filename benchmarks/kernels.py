"""Times the convolution by a tensor product: geoeq's kernels, e3nn, and others where they are installed.

    python benchmarks/kernels.py [--only mace] [--repeats 5] [--threads 2] [--output FILE.json]

Gather, product with harmonics and weights of each edge, sum at the receivers; on random graphs, in float32. Three
passes: forward; forward and backward (derivatives by features, harmonics and weights); and the step of a potential
(derivative by harmonics, and then those of a function of it and of the value by features and weights). Then the same
with the last layer of a network of the distance, of 64 hidden columns: its weights are made before, or inside. Each
case with each implementation is a process of its own, so that memory is its own: the highest resident size in the
passes, less that before them with all inputs made. Bytes and operations are counted: every input read and every result
written once, two operations for each product that is added. Writes a JSON file, and the table beside it in Markdown.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from models import measured_apart, memory, processor
from torch import Tensor

import geoeq
from geoeq import kernels
from geoeq.environment import git_commit
from geoeq.kernels.paths import coupling
from geoeq.layers import TensorProductConv
from geoeq.pointers import row_pointers, sorted_by

RESULTS = Path(__file__).parent / "results" / "kernels.json"

#: Seconds for the passes of one median, and for a case altogether.
PATIENCE, LIMIT = 10.0, 300.0

PASSES = ("forward", "backward", "double")

#: Hidden columns of the network of the distance.
HIDDEN = 64


@dataclass(frozen=True)
class Case:
    """A tensor product, and the graph that it is tried on."""

    name: str
    irreps_in: str
    harmonics: str
    irreps_out: str
    nodes: int
    neighbors: int

    def conv(self) -> TensorProductConv:
        return TensorProductConv(self.irreps_in, self.harmonics, self.irreps_out)


def _both(channels: int, lmax: int) -> str:
    return " + ".join(f"{channels}x{degree}{parity}" for degree in range(lmax + 1) for parity in "eo")


def _natural(channels: int | str, lmax: int) -> str:
    return " + ".join(f"{channels}x{degree}{'eo'[degree % 2]}" for degree in range(lmax + 1))


CASES = (
    Case("64 channels, l <= 2", _natural(64, 2), _natural(1, 2), _natural(1, 2), 576, 17),
    Case("mace-medium", "128x0e + 128x1o", _natural(1, 3), "0e + 1o + 2e", 160, 64),
    Case("mace-medium, 64 channels", "64x0e + 64x1o", _natural(1, 3), "0e + 1o + 2e", 160, 64),
    Case("mace-large", _natural(128, 2), _natural(1, 3), _natural(1, 3), 96, 64),
    Case("nequip, 32 channels, l <= 1", _both(32, 1), _natural(1, 1), _both(1, 1), 160, 53),
    Case("nequip, 32 channels, l <= 2", _both(32, 2), _natural(1, 2), _both(1, 2), 160, 53),
    Case("nequip, 32 channels, l <= 3", _both(32, 3), _natural(1, 3), _both(1, 3), 96, 53),
    Case("nequip, 64 channels, l <= 2", _both(64, 2), _natural(1, 2), _both(1, 2), 96, 53),
    Case("like 7net-l3i5", "128x0e + 64x1o + 32x2e + 32x3o", _natural(1, 3), _natural(1, 3), 96, 53),
)
SCALING = (
    *(
        Case(f"{16 * nodes} edges", _natural(64, 2), _natural(1, 2), _natural(1, 2), nodes, 16)
        for nodes in (64, 640, 6400, 64000)
    ),
    *(Case(f"lmax {lmax}", _natural(64, lmax), _natural(1, lmax), _natural(1, lmax), 576, 17) for lmax in (1, 2, 3, 4)),
)


@dataclass(frozen=True)
class RandomGraph:
    """Edges from random senders, as many to every node."""

    sender: Tensor
    receiver: Tensor
    num_nodes: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "row_pointers", row_pointers(self.receiver, self.num_nodes))
        object.__setattr__(self, "by_sender", sorted_by(self.sender, self.num_nodes))


def graph_of(case: Case) -> RandomGraph:
    generator = torch.Generator().manual_seed(0)
    receiver = torch.arange(case.nodes).repeat_interleave(case.neighbors)
    return RandomGraph(torch.randint(case.nodes, receiver.shape, generator=generator), receiver, case.nodes)


Run = Callable[[Tensor, Tensor, Tensor], Tensor]
RadialRun = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def ours(case: Case, graph: RandomGraph, backend: str) -> Run:
    paths = case.conv().paths

    def run(x: Tensor, harmonics: Tensor, weights: Tensor) -> Tensor:
        with kernels.use(backend):
            return kernels.tensor_product_conv(x, harmonics, weights, graph, paths)

    return run


def of_e3nn(case: Case, graph: RandomGraph, compiled: bool) -> Run:
    product = case.conv().to_e3nn()
    if compiled:
        product = torch.compile(product)

    def run(x: Tensor, harmonics: Tensor, weights: Tensor) -> Tensor:
        messages = product(x.index_select(0, graph.sender), harmonics, weights)
        return messages.new_zeros(graph.num_nodes, messages.shape[1]).index_add(0, graph.receiver, messages)

    return run


def of_cuequivariance(case: Case, graph: RandomGraph) -> Run:
    """NVIDIA's package; on a CPU its plain method."""
    import cuequivariance as cue
    import cuequivariance_torch as cuet

    irreps = [cue.Irreps("O3", text) for text in (case.irreps_in, case.harmonics, case.irreps_out)]
    product = cue.descriptors.channelwise_tensor_product(*irreps)
    module = cuet.SegmentedPolynomial(product.polynomial, method="naive")

    def run(x: Tensor, harmonics: Tensor, weights: Tensor) -> Tensor:
        (messages,) = module([weights, x.index_select(0, graph.sender), harmonics])
        return messages.new_zeros(graph.num_nodes, messages.shape[1]).index_add(0, graph.receiver, messages)

    return run


IMPLEMENTATIONS: dict[str, Callable[[Case, RandomGraph], Run]] = {
    "geoeq, llvm": lambda case, graph: ours(case, graph, "llvm"),
    "geoeq, reference": lambda case, graph: ours(case, graph, "reference"),
    "e3nn": lambda case, graph: of_e3nn(case, graph, compiled=False),
    "e3nn, torch.compile": lambda case, graph: of_e3nn(case, graph, compiled=True),
    "cuequivariance, naive": of_cuequivariance,
}


def weights_before(run: Run) -> RadialRun:
    """The weights as an array, as everyone makes them."""
    return lambda x, harmonics, hidden, matrix: run(x, harmonics, hidden @ matrix)


def weights_inside(case: Case, graph: RandomGraph) -> RadialRun:
    paths = case.conv().paths

    def run(x: Tensor, harmonics: Tensor, hidden: Tensor, matrix: Tensor) -> Tensor:
        return kernels.radial_tensor_product_conv(x, harmonics, hidden, matrix, graph, paths)

    return run


#: With the last layer of the network of the distance.
RADIAL: dict[str, Callable[[Case, RandomGraph], RadialRun]] = {
    "geoeq, weights inside": weights_inside,
    "geoeq, weights before": lambda case, graph: weights_before(ours(case, graph, "llvm")),
    "reference, weights before": lambda case, graph: weights_before(ours(case, graph, "reference")),
    "e3nn, weights before": lambda case, graph: weights_before(of_e3nn(case, graph, compiled=False)),
}


def passes(run: Callable[..., Tensor], factors: list[Tensor]) -> dict[str, Callable[[], Any]]:
    def forward() -> None:
        with torch.no_grad():
            run(*factors)

    def backward() -> None:
        torch.autograd.grad(run(*factors).square().sum(), factors)

    def double() -> None:
        value = run(*factors).square().sum()
        (force,) = torch.autograd.grad(value, factors[1], create_graph=True)
        torch.autograd.grad(value + force.square().sum(), [factors[0], *factors[2:]])

    return dict(zip(PASSES, (forward, backward, double), strict=True))


def measure(case: Case, implementation: str, threads: int, repeats: int) -> dict[str, float]:
    """Milliseconds and MB of every pass, in this process."""
    torch.set_num_threads(threads)
    graph, paths = graph_of(case), case.conv().paths
    generator = torch.Generator().manual_seed(0)
    edges, numel = len(graph.sender), paths.weight_numel
    shapes = [(case.nodes, paths.x_dim), (edges, paths.harmonics_dim)]
    shapes += [(edges, HIDDEN), (HIDDEN, numel)] if implementation in RADIAL else [(edges, numel)]
    factors = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
    run: Callable[..., Tensor] = {**IMPLEMENTATIONS, **RADIAL}[implementation](case, graph)
    found: dict[str, float] = {}
    for name, step in passes(run, factors).items():
        started = time.perf_counter()
        try:
            step()  # what is built on the first call is not part of the time
        except RuntimeError:
            continue  # torch.compile has no second derivatives
        found[f"{name} first call"] = 1e3 * (time.perf_counter() - started)
        Path("/proc/self/clear_refs").write_text("5")
        before, times = memory("VmRSS"), []
        while len(times) < repeats and (not times or sum(times) < PATIENCE):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        found[name] = 1e3 * statistics.median(times)
        found[f"{name} MB"] = memory("VmHWM") - before
    return found


def counted(case: Case) -> dict[str, float]:
    """What a forward pass has to move (MB) and to compute (million operations), at the least."""
    paths, edges = case.conv().paths, case.nodes * case.neighbors
    numbers = case.nodes * (paths.x_dim + paths.out_dim) + edges * (paths.harmonics_dim + paths.weight_numel)
    index = 8 * (edges + case.nodes + 1)
    operations = 0
    for path in paths.paths:
        pairs = int((coupling(*path.degrees).abs().sum(1) > 1e-12).sum())  # (i, k) with a coefficient
        operations += 2 * edges * path.x_channels * (pairs + 2 * path.degrees[2] + 1)
    return {"edges": edges, "MB": (4 * numbers + index) / 1e6, "Mop": operations / 1e6}


def copy_bandwidth(threads: int) -> float:
    """GB/s, read and written, of a copy larger than any cache."""
    torch.set_num_threads(threads)
    source, target = torch.ones(2**26), torch.empty(2**26)
    times = []
    for _ in range(7):
        started = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - started)
    return 2 * source.nbytes / statistics.median(times) / 1e9


def table(results: dict[str, Any]) -> list[str]:
    """The results as Markdown."""
    lines = ["# Convolutions by tensor products", "", results["about"], ""]
    lines += [f"A copy of 256 MB moves {results['bandwidth']:.1f} GB/s on this machine, counting reads and writes.", ""]
    head = "| case | implementation | forward [ms] | and backward [ms] | and second derivatives [ms] |"
    head += " speed-up over e3nn | peak memory [MB] | forward [GB/s of counted bytes] |"
    lines += [head, "|---|---|---:|---:|---:|---:|---:|---:|"]
    for case, entry in results["cases"].items():
        for name, found in entry["found"].items():
            if "failure" in found:
                lines.append(f"| {case} | {name} | failed: {found['failure']} |  |  |  |  |  |")
                continue
            have = [step for step in PASSES if step in found]
            times = " | ".join(f"{found[step]:.2f}" if step in have else "no" for step in PASSES)
            base = entry["found"].get("e3nn, weights before" if name in RADIAL else "e3nn", {})
            ratios = " / ".join(f"{base[step] / found[step]:.1f}" for step in have) if "forward" in base else ""
            most = " / ".join(f"{found[f'{step} MB']:.0f}" for step in have)
            rate = "" if name in RADIAL else f"{entry['counted']['MB'] / found['forward']:.1f}"
            lines.append(f"| {case} | {name} | {times} | {ratios} | {most} | {rate} |")
    counted_lines = [
        f"| {case} | {entry['counted']['edges']:.0f} | {entry['counted']['MB']:.1f} | {entry['counted']['Mop']:.0f} |"
        for case, entry in results["cases"].items()
    ]
    lines += ["", "| case | edges | counted MB | counted million operations |", "|---|---:|---:|---:|", *counted_lines]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="TEXT", help="the cases with this text in their name")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--output", type=Path, help="a JSON file; by default benchmarks/results/kernels.json, unless --only"
    )
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--implementation", help=argparse.SUPPRESS)
    given = parser.parse_args()
    every = (*CASES, *SCALING)
    if given.case is not None:
        print(json.dumps(measure(every[given.case], given.implementation, given.threads, given.repeats)))
        return
    about = (
        f"Medians of {given.repeats} passes, float32. Written by `python benchmarks/kernels.py` on "
        f"{datetime.date.today()}: {processor()}, {given.threads} threads, geoeq {geoeq.__version__} "
        f"(commit {git_commit()}), torch {torch.__version__}, e3nn {version('e3nn')}."
    )
    results: dict[str, Any] = {"about": about, "bandwidth": copy_bandwidth(given.threads), "cases": {}}
    output = given.output or (None if given.only else RESULTS)
    for place, case in enumerate(every):
        if given.only and given.only not in case.name:
            continue
        names = [*IMPLEMENTATIONS, *RADIAL] if case in CASES else ["geoeq, llvm", "geoeq, weights inside"]
        entry: dict[str, Any] = {"counted": counted(case), "found": {}}
        results["cases"][case.name] = entry
        for name in names:
            arguments = ["--case", str(place), "--implementation", name, "--repeats", str(given.repeats)]
            entry["found"][name] = measured_apart(__file__, arguments, given.threads, LIMIT)
            print(case.name, name, json.dumps(entry["found"][name]), flush=True)
        if output is not None:
            output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            output.with_suffix(".md").write_text("\n".join(table(results)) + "\n", encoding="utf-8")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
