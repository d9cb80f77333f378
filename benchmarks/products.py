"""What the products of features and harmonics can express, and what they cost, for L = 1 to 6.

    python benchmarks/products.py [--repeats 5] [--output benchmarks/results/products.md]

Features, harmonics and result have the degrees to L. Forward, and forward and backward with respect to features and
weights, of gather, product and sum at the receivers; all products in turns, on the same graph. Harmonics and frames of
the edges are made once for all layers of a network, and are timed by themselves.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch
from torch_geometric.data import Data

import geoeq
from geoeq.geometry.harmonics import harmonics
from geoeq.graph import Graph, build_graph, with_frames
from geoeq.layers.products import EdgeProduct, edge_product

#: Name in the tables, product and group.
PRODUCTS = [
    ("Clebsch-Gordan, SE(3)", "clebsch_gordan", "SE(3)"),
    ("Clebsch-Gordan, E(3)", "clebsch_gordan", "E(3)"),
    ("edge frame, SE(3)", "edge_frame", "SE(3)"),
    ("edge frame, E(3)", "edge_frame", "E(3)"),
    ("Gaunt, Fourier", "gaunt_fourier", "E(3)"),
    ("Gaunt, grid", "gaunt_grid", "E(3)"),
]
NODES, NEIGHBORS, CHANNELS = 64, 16, 64


def graph(lmax: int) -> Graph:
    """Random positions, each node with its nearest neighbours."""
    torch.manual_seed(0)
    return with_frames(build_graph(Data(pos=5 * torch.randn(NODES, 3)), lmax=lmax, k=NEIGHBORS), lmax)


def step(product: EdgeProduct, edges: Graph, backward: bool) -> float:
    """Seconds for one pass."""
    x = torch.randn(NODES, (product.lmax + 1) ** 2, CHANNELS, requires_grad=backward)
    weights = torch.randn(len(edges.sender), product.weight_numel, requires_grad=backward)
    start = time.perf_counter()
    out = product(x, weights, edges)
    if backward:
        out.sum().backward()
    return time.perf_counter() - start


def times(lmax: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds of each product, forward and with backward."""
    edges = graph(lmax)
    products = {label: edge_product(name, CHANNELS, lmax, group=group) for label, name, group in PRODUCTS}
    found: dict[str, tuple[list[float], list[float]]] = {label: ([], []) for label in products}
    for _ in range(repeats + 1):
        for label, product in products.items():
            for backward in (False, True):
                found[label][backward].append(step(product, edges, backward))
    return {
        label: (1e3 * statistics.median(pair[0][1:]), 1e3 * statistics.median(pair[1][1:]))
        for label, pair in found.items()
    }


def geometry(lmax: int, repeats: int) -> tuple[float, float]:
    """Median milliseconds for the harmonics and for the frames of the edges."""
    edges = graph(lmax)
    parts = (
        lambda: harmonics(edges.vectors, edges.lengths, lmax),
        lambda: with_frames(edges, lmax),
    )
    medians = []
    for part in parts:
        found = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            part()
            found.append(time.perf_counter() - start)
        medians.append(1e3 * statistics.median(found[1:]))
    return medians[0], medians[1]


def table(title: str, rows: list[list[str]]) -> list[str]:
    """A Markdown table with a column for each L."""
    head = [title, *(f"L = {lmax}" for lmax in LMAX)]
    return [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]


LMAX = range(1, 7)


def counts() -> list[str]:
    """The tables of what each product can express; they depend on nothing but the code."""
    made = {label: [edge_product(name, 1, lmax, group=group) for lmax in LMAX] for label, name, group in PRODUCTS}
    expressivity = [[label, *(str(product.expressivity) for product in row)] for label, row in made.items()]
    interactions = [[label, *(str(len(product.interactions)) for product in row)] for label, row in made.items()]
    weights = [[label, *(str(product.weight_numel) for product in row)] for label, row in made.items()]
    return [
        *table("expressivity (dimension of the maps per channel)", expressivity),
        "",
        *table("interactability (triples l1, l2, l3)", interactions),
        "",
        *table("weights per edge and channel", weights),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    measured = [times(lmax, arguments.repeats) for lmax in LMAX]
    labels = [label for label, _, _ in PRODUCTS]
    forward = [[label, *(f"{found[label][0]:.1f}" for found in measured)] for label in labels]
    both = [[label, *(f"{found[label][1]:.1f}" for found in measured)] for label in labels]
    shared = [geometry(lmax, arguments.repeats) for lmax in LMAX]
    once = [
        ["harmonics", *(f"{found[0]:.1f}" for found in shared)],
        ["frames", *(f"{found[1]:.1f}" for found in shared)],
    ]
    lines = [
        "# Products of features and harmonics",
        "",
        "Features, harmonics and result have the degrees 0 to L; in the edge frame, harmonics have degrees up to 2 L.",
        "",
        *counts(),
        "",
        f"{CHANNELS} channels, {NODES} nodes, {NODES * NEIGHBORS} edges, float32; gather, product and sum.",
        "",
        *table("forward, ms", forward),
        "",
        *table("forward and backward, ms", both),
        "",
        *table("computed once for all layers, forward, ms", once),
        "",
        f"geoeq {geoeq.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{platform.processor() or platform.machine()}, median of {arguments.repeats} alternating repeats.",
    ]
    text = "\n".join(lines)
    print(text)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
