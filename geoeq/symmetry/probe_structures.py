"""Difficult structures for frames and harmonics: edges along the axes, symmetric, planar and linear molecules."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

__all__ = ["NODE_INPUTS", "axis_structures", "degenerate_structures", "doubled", "moving_atom"]

#: Model inputs that belong to atoms, other than positions.
NODE_INPUTS = ("z", "vel", "charge", "x", "tags")

#: Distances from exact symmetry in Å.
_DISTORTIONS = (0.0, 1e-8, 1e-4)

#: Cluster in Å, and the direction in which another atom leaves it.
_CLUSTER = [[0.0, 0.0, 0.0], [-0.9, 0.7, 0.3], [-0.4, -1.1, 0.5], [-1.3, -0.2, -0.8]]
_DIRECTION = [0.9705, 0.2157, -0.1078]


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
    cluster, direction = torch.tensor(_CLUSTER, dtype=torch.float64), torch.tensor(_DIRECTION, dtype=torch.float64)
    direction = direction / direction.norm()
    return _batch([torch.cat([cluster, (direction * float(d)).unsqueeze(0)]) for d in distances], like)


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
