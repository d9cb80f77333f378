"""A training step of EGNN, with the first linear map of its edge networks per node and per edge.

    python benchmarks/egnn.py [--repeats 10] [--output benchmarks/results/egnn.md]

7 layers of 128 channels, forward and backward, on 96 made-up molecules of QM9's sizes (18 atoms on average, 29 at the
most) with all pairs of atoms as edges, as the paper trains. Both forms have the same weights and are timed in turns.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

import geoeq
from geoeq import kernels
from geoeq.graph import Graph
from geoeq.layers.layer import EdgeLinear
from geoeq.models import EGNN, GraphScalar


class PerEdge(EdgeLinear):
    """The same map of the concatenation, for each edge."""

    def forward(self, x: Tensor, edges: Tensor, graph: Graph) -> Tensor:
        ends = kernels.gather(x, graph.receiver), kernels.gather(x, graph.sender)
        whole = torch.cat([*ends, edges], dim=-1)  # [E, 2C + A]
        return torch.nn.functional.linear(whole, self.weight, self.bias)


def molecules(count: int) -> Batch:
    """Random elements and positions; the time does not depend on them."""
    sizes = (18 + 3 * torch.randn(count)).round().clamp(3, 29).int().tolist()
    elements = torch.tensor([1, 1, 1, 6, 6, 7, 8, 9])
    graphs = [Data(z=elements[torch.randint(8, (size,))], pos=3 * torch.randn(size, 3)) for size in sizes]
    return Batch.from_data_list(graphs)


def step(model: EGNN, batch: Batch) -> float:
    """Seconds for one forward and backward pass."""
    start = time.perf_counter()
    model.zero_grad(set_to_none=True)
    model(batch)["gap"].square().sum().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    batch = molecules(96)
    options = {"width": 128, "layers": 7, "attention": True, "update_positions": False}
    model = EGNN([GraphScalar("gap", reduce="sum", after_pooling=True)], **options)
    published = EGNN([GraphScalar("gap", reduce="sum", after_pooling=True)], **options)
    published.load_state_dict(model.state_dict())
    for layer in published.layers:
        layer.edge.__class__ = PerEdge
    error = float((model(batch)["gap"] - published(batch)["gap"]).abs().max().detach())

    times: dict[str, list[float]] = {"per node": [], "per edge": []}
    for _ in range(arguments.repeats + 1):
        times["per node"].append(step(model, batch))
        times["per edge"].append(step(published, batch))
    median = {name: 1e3 * statistics.median(values[1:]) for name, values in times.items()}
    sizes = batch.ptr.diff()
    lines = [
        "# Training step of EGNN",
        "",
        f"Forward and backward, 7 layers of 128 channels, {len(sizes)} molecules, {int(sizes.sum())} atoms, "
        f"{int((sizes * (sizes - 1)).sum())} edges, float32.",
        "",
        "| first linear map of the edge network | ms (median) |",
        "|---|---|",
        *[f"| {name} | {value:.0f} |" for name, value in median.items()],
        "",
        f"Ratio {median['per edge'] / median['per node']:.2f}; the outputs differ by {error:.1e}.",
        "",
        f"geoeq {geoeq.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{platform.processor() or platform.machine()}, {arguments.repeats} alternating repeats.",
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
