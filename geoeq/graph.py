"""Graph: the geometry of a batch, computed once and shared by all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import e3nn
import torch
from e3nn import o3
from torch import Tensor

from geoeq.neighbors import (
    Edges,
    batch_from_ptr,
    edge_lengths,
    edge_vectors,
    full_edges,
    nearest_edges,
    radius_edges,
    row_pointers,
    sort_edges,
)

__all__ = ["Graph", "build_graph", "harmonics"]


@dataclass(frozen=True)
class Graph:
    """Edges of a batch of structures with their geometry, sorted by receiver."""

    sender: Tensor
    receiver: Tensor
    row_pointers: Tensor
    vectors: Tensor
    lengths: Tensor
    harmonics: Tensor
    degree: Tensor
    batch: Tensor
    ptr: Tensor
    num_graphs: int
    positions: Tensor
    edge_attr: Tensor | None = None
    cutoff: float | None = None
    lmax: int = 0
    numbers: Tensor | None = None

    @property
    def num_nodes(self) -> int:
        """Number N of nodes."""
        return self.positions.shape[0]


def _polynomials() -> tuple[o3.SphericalHarmonics, ...]:
    # Plain Python rather than TorchScript, so that torch.compile and second derivatives see through.
    mode = e3nn.get_optimization_defaults()["jit_mode"]
    e3nn.set_optimization_defaults(jit_mode="eager")
    try:
        return tuple(
            o3.SphericalHarmonics(list(range(lmax + 1)), normalize=False, normalization="component")
            for lmax in range(MAX_LMAX + 1)
        )
    finally:
        e3nn.set_optimization_defaults(jit_mode=mode)


MAX_LMAX = 11
_POLYNOMIALS = _polynomials()


def harmonics(vectors: Tensor, lengths: Tensor, lmax: int) -> Tensor:
    """Real spherical harmonics of the directions of edges, [E, (lmax + 1)²]."""
    if lmax == 0:
        return vectors.new_ones(len(vectors), 1)
    zero = (lengths == 0).unsqueeze(-1)
    unit = torch.where(zero, 0.0, vectors / torch.where(zero, 1.0, lengths.unsqueeze(-1)))
    result: Tensor = _POLYNOMIALS[lmax](unit)
    return result


def build_graph(data: Any, cutoff: float | None = None, lmax: int = 0, *, k: int | None = None) -> Graph:
    """Find the edges of a batch, or take the given ones, and compute their geometry."""
    positions = data.pos
    ptr = getattr(data, "ptr", None)
    if ptr is None and getattr(data, "batch", None) is not None:
        ptr = row_pointers(data.batch, int(data.batch[-1]) + 1 if len(data.batch) else 0)
    if ptr is None:
        ptr = torch.tensor([0, len(positions)], device=positions.device)
    batch = batch_from_ptr(ptr, len(positions))
    cell, pbc = getattr(data, "cell", None), getattr(data, "pbc", None)
    edge_index, edge_attr = getattr(data, "edge_index", None), getattr(data, "edge_attr", None)
    if k is not None:
        edges = nearest_edges(positions, ptr, k)
    elif cutoff is not None:
        edges = radius_edges(positions, ptr, cutoff, cell, pbc)
    elif edge_index is not None:
        edges, order = sort_edges(edge_index, len(positions), getattr(data, "edge_shifts", None))
        edge_attr = None if edge_attr is None else edge_attr[order]
    else:
        edges = full_edges(ptr)
    vectors = edge_vectors(positions, edges.sender, edges.receiver, edges.shifts, cell, batch)
    lengths = edge_lengths(vectors)
    return Graph(
        sender=edges.sender,
        receiver=edges.receiver,
        row_pointers=edges.row_pointers,
        vectors=vectors,
        lengths=lengths,
        harmonics=harmonics(vectors, lengths, lmax),
        degree=(edges.row_pointers[1:] - edges.row_pointers[:-1]).to(positions.dtype),
        batch=batch,
        ptr=ptr,
        num_graphs=len(ptr) - 1,
        positions=positions,
        edge_attr=edge_attr,
        cutoff=cutoff,
        lmax=lmax,
        numbers=getattr(data, "z", None),
    )
