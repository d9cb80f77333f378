"""Difficult structures for frames and harmonics: edges along the axes, symmetric, planar and linear molecules."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

__all__ = [
    "NODE_INPUTS",
    "PASSAGES",
    "axis_structures",
    "beside_the_next",
    "degenerate_structures",
    "doubled",
    "moved_by_lattice_vectors",
    "moving_atom",
    "passing_atom",
    "wrapped",
]

#: Model inputs that belong to atoms, other than positions.
NODE_INPUTS = ("z", "vel", "charge", "x", "tags")

#: Distances from exact symmetry in Å.
_DISTORTIONS = (0.0, 1e-8, 1e-4)

#: Cluster in Å, and the direction in which another atom leaves it.
_CLUSTER = [[0.0, 0.0, 0.0], [-0.9, 0.7, 0.3], [-0.4, -1.1, 0.5], [-1.3, -0.2, -0.8]]
_DIRECTION = [0.9705, 0.2157, -0.1078]

#: Name -> other atoms, the moving atom at the special arrangement, and its direction; in Å.
PASSAGES: dict[str, tuple[list[list[float]], list[float], list[float]]] = {
    "a linear molecule": ([[1.0, 0.6, -0.4], [-1.0, -0.6, 0.4]], [0.0, 0.0, 0.0], [0.3, 0.1, 0.9]),
    "the line of two of its neighbours": (
        [[1.0, 0.6, -0.4], [-1.0, -0.6, 0.4], [0.3, -1.4, -1.1]],
        [0.0, 0.0, 0.0],
        [0.3, 0.1, 0.9],
    ),
    "the plane of its neighbours": (
        [[1.3, 0.2, 0.4], [-0.7, 1.2, -0.3], [-0.5, -1.1, 0.1]],
        [0.0, 0.11, 0.04],
        [0.1, -0.4, 1.2],
    ),
    "where its edges are along the axes": (
        [[1.3, 0.0, 0.0], [0.0, 1.4, 0.0], [0.0, 0.0, 1.5]],
        [0.0, 0.0, 0.0],
        [1.0, 0.9, -1.1],
    ),
}


def axis_structures(like: Batch) -> Batch:
    """Return pairs along ±x, ±y and ±z, and an octahedron, with the elements of a batch."""
    axes = torch.cat([torch.eye(3), -torch.eye(3)]) * 1.6
    pairs = [torch.stack([torch.zeros(3), axis]) for axis in axes]
    return _batch([*pairs, torch.cat([torch.zeros(1, 3), axes])], like)


def degenerate_structures(like: Batch) -> Batch:
    """Return a linear, a planar, a square, a pyramidal and a tetrahedral molecule: exact, and slightly distorted."""
    circle = torch.linspace(0, 2 * torch.pi, 7)[:6]
    ring = 1.47 * torch.stack([circle.cos(), circle.sin(), torch.zeros(6)], -1)
    square = torch.tensor([[1.1, 0, 0], [0, 1.1, 0], [-1.1, 0, 0], [0, -1.1, 0]])
    pyramid = torch.cat([torch.tensor([[0, 0, 0.5]]), ring[::2] * 0.8])
    signs = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    tetrahedron = torch.cat([torch.zeros(1, 3), 0.9 * signs])
    line = torch.tensor([[0.0, 0, 0], [0.7, 0.7, 0.7], [-0.7, -0.7, -0.7]])
    generator = torch.Generator().manual_seed(0)
    shapes = [line, ring, square, pyramid, tetrahedron]
    distorted = [
        shape.double() + size * torch.randn(shape.shape, generator=generator)
        for size in _DISTORTIONS
        for shape in shapes
    ]
    return _batch(distorted, like)


def moving_atom(distances: Tensor, like: Batch) -> Batch:
    """Return a cluster with another atom at each of these distances [S] in Å from its first atom."""
    return _path(_CLUSTER, [0.0, 0.0, 0.0], _DIRECTION, distances, like)


def passing_atom(passage: str, distances: Tensor, like: Batch) -> Batch:
    """Return structures whose last atom is at these distances [S] in Å, along a line, from a special arrangement."""
    return _path(*PASSAGES[passage], distances, like)


def _path(
    others: list[list[float]], start: list[float], direction: list[float], distances: Tensor, like: Batch
) -> Batch:
    fixed, first, along = (torch.tensor(values, dtype=torch.float64) for values in (others, start, direction))
    along = along / along.norm()
    return _batch([torch.cat([fixed, (first + along * float(d)).unsqueeze(0)]) for d in distances], like)


def doubled(batch: Batch, distance: float) -> Batch:
    """Return each structure beside a copy of itself: in a doubled cell if it is periodic, else at this distance."""
    graphs = []
    for graph in batch.to_data_list():
        twice = Data(**{key: torch.cat([graph[key], graph[key]]) for key in NODE_INPUTS if key in graph})
        shift = graph.pos.new_tensor([distance, 0.0, 0.0])
        if "cell" in graph:
            twice.cell, twice.pbc = graph.cell.reshape(1, 3, 3).clone(), graph.pbc
            periodic = graph.pbc.reshape(3).nonzero().flatten().tolist()
            if periodic:
                shift = graph.cell.reshape(3, 3)[periodic[0]]
                twice.cell[0, periodic[0]] *= 2
        if "total_charge" in graph:
            twice.total_charge = 2 * graph.total_charge
        twice.pos = torch.cat([graph.pos, graph.pos + shift])
        graphs.append(twice)
    return Batch.from_data_list(graphs)


def beside_the_next(batch: Batch, distance: float) -> Batch:
    """Return each open structure at this distance from the next one of its batch, the last beside the first."""
    graphs = batch.to_data_list()
    pairs = []
    for graph, other in zip(graphs, [*graphs[1:], graphs[0]]):
        pair = Data(**{key: torch.cat([graph[key], other[key]]) for key in NODE_INPUTS if key in graph})
        if "total_charge" in graph:
            pair.total_charge = graph.total_charge + other.total_charge
        pair.pos = torch.cat([graph.pos, other.pos + graph.pos.new_tensor([distance, 0.0, 0.0])])
        pairs.append(pair)
    return Batch.from_data_list(pairs)


def moved_by_lattice_vectors(batch: Batch, seed: int) -> Batch:
    """Return the same crystals with one atom of each listed at another of its periodic images."""
    generator = torch.Generator().manual_seed(seed)
    cell, pbc = batch.cell.reshape(-1, 3, 3), batch.pbc.reshape(-1, 3)
    steps = torch.randint(0, 2, pbc.shape, generator=generator) * 2 - 1  # -1 or 1, [G, 3]
    vectors = torch.einsum("gi,gij->gj", (steps * pbc).to(cell), cell)  # [G, 3]
    counts = batch.ptr.diff()
    atoms = batch.ptr[:-1] + (torch.rand(len(counts), generator=generator) * counts).long()
    moved = batch.clone()
    moved.pos = batch.pos.index_add(0, atoms, vectors.to(batch.pos))
    return moved


def wrapped(batch: Batch, seed: int) -> Batch:
    """Return the same crystals, shifted by a random vector, with all atoms brought back into the cell."""
    generator = torch.Generator().manual_seed(seed)
    cell, pbc = batch.cell.reshape(-1, 3, 3)[batch.batch], batch.pbc.reshape(-1, 3)[batch.batch]  # [N, 3, 3], [N, 3]
    shift = torch.rand((batch.num_graphs, 3), generator=generator).to(cell)[batch.batch]
    fractions = torch.linalg.solve(cell.mT, batch.pos) + shift
    moved = batch.clone()
    moved.pos = torch.einsum("ni,nij->nj", torch.where(pbc, fractions % 1.0, fractions), cell)
    return moved


def _batch(positions: list[Tensor], like: Batch) -> Batch:
    """Return structures whose other inputs are those of the atoms of another batch, in order."""
    graphs = []
    for pos in positions:
        rows = torch.arange(len(pos)) % len(like.pos)
        data = Data(pos=pos.to(like.pos))
        for key in NODE_INPUTS:
            if key in like:
                data[key] = like[key][rows]
        graphs.append(data)
    return Batch.from_data_list(graphs)
