"""Graph: the edges and geometry of a batch, computed once and shared by all layers."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from geoeq.errors import InputError, TensorError
from geoeq.geometry.harmonics import MAX_LMAX, harmonics
from geoeq.geometry.lattice import check_open
from geoeq.geometry.neighbors import (
    Edges,
    edge_lengths,
    edge_vectors,
    full_edges,
    nearest_edges,
    radius_edges,
    sort_edges,
)
from geoeq.geometry.rotations import wigner_blocks
from geoeq.pointers import batch_from_ptr, graph_pointers, row_pointers, sorted_by

__all__ = ["MAX_LMAX", "Graph", "build_graph", "displace", "edge_frames", "harmonics", "in_dtype", "with_frames"]

_ONLY_OPEN = "for open structures: give a cutoff, or set pbc to False."


@dataclass(frozen=True)
class Graph:
    """Edges of a batch of structures and their geometry, sorted by receiver.

    Shapes:
        sender: [E] int64, j. receiver: [E] int64, i.
        row_pointers: [N + 1] int64; the edges into node i are row_pointers[i] to row_pointers[i + 1].
        vectors: [E, 3] Å, from receiver to sender: r_j - r_i + shift @ cell. lengths: [E] Å.
        harmonics: [E, (lmax + 1)²], in e3nn's order, "component" normalised.
        degree: [N] number of edges into each node, in the dtype of the positions.
        batch: [N] int64, the graph of each node. ptr: [G + 1] int64, the first node of each graph.
        positions: [N, 3] Å. edge_attr: [E, A] in the order of the edges, or None.
        numbers: [N] int64 atomic numbers, or None.
        frames: for l = 0, 1 .. the [E, 2l + 1, 2l + 1] of ``wigner_blocks``, or None.
        total_charge: [G] e, the net charges of the structures, or None.
        cell: [G, 3, 3] Å, and pbc: [G, 3] bool, the cell vectors and the periodic directions, or None.

    Attributes:
        num_graphs: number G of structures.
        cutoff: cutoff radius in Å; None if the edges come from the data or the graph is complete.
        lmax: highest degree of the harmonics.
    """

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
    frames: tuple[Tensor, ...] | None = None
    total_charge: Tensor | None = None
    cell: Tensor | None = None
    pbc: Tensor | None = None

    @property
    def num_nodes(self) -> int:
        """Number N of nodes."""
        return self.positions.shape[0]

    def to(self, dtype: torch.dtype) -> Graph:
        """Return the same graph with its floating-point tensors converted to a dtype."""
        names = ("vectors", "lengths", "harmonics", "degree", "positions")
        converted = {name: getattr(self, name).to(dtype) for name in names}
        edge_attr = None if self.edge_attr is None else self.edge_attr.to(dtype)
        frames = None if self.frames is None else tuple(block.to(dtype) for block in self.frames)
        cell = None if self.cell is None else self.cell.to(dtype)
        return replace(self, **converted, edge_attr=edge_attr, frames=frames, cell=cell)

    @cached_property
    def by_sender(self) -> tuple[Tensor, Tensor]:
        """Edges sorted by sender, [E], and the first entry of each sender in that list, [N + 1]."""
        return sorted_by(self.sender, self.num_nodes)


def build_graph(data: Any, cutoff: float | None = None, lmax: int = 0, *, k: int | None = None) -> Graph:
    """Find the edges of a batch, or take those of the data, and compute their geometry.

    With ``cutoff``, the edges of ``data`` are used if its ``edge_cutoff`` has the same value; otherwise they are
    searched. With ``k``, each node receives from its k nearest nodes. With neither, the edges of ``data`` are used as
    they are; if it has none, all nodes of a graph are neighbours. Vectors are always recomputed, and are differentiable
    with respect to ``pos`` and ``cell``.

    Edges that come with ``edge_cutoff`` are assumed to be those of ``radius_edges``, sorted and in range, and under
    torch.compile to have the requested cutoff. Without ``edge_shifts``, edges of the data cross no periodic boundary.

    Args:
        data: PyG Data or Batch, or any object with such attributes: ``pos`` and, optionally, ``ptr`` or ``batch``,
            ``cell`` and ``pbc``, ``edge_index``, ``edge_shifts``, ``edge_attr``, ``edge_cutoff``, ``total_charge``.
        cutoff: cutoff radius in Å.
        lmax: highest degree of the harmonics.
        k: number of neighbours of each node.

    Shapes:
        pos: [N, 3] Å. cell: [G, 3, 3] Å. pbc: [G, 3] bool. edge_index: [2, E] int64, senders over receivers.
        edge_shifts: [E, 3]. edge_attr: [E, A]. edge_cutoff: [G] Å.

    Raises:
        InputError: the arguments contradict each other, or a tensor is invalid.
    """
    if cutoff is not None and k is not None:
        raise InputError(f"build_graph takes a cutoff ({cutoff}) or a number of neighbours ({k}), not both.")
    positions = data.pos
    if positions.dim() != 2 or positions.shape[1] != 3:
        raise TensorError(
            f"pos has shape {list(positions.shape)}; it must be [N, 3]: three coordinates of each point. Give "
            "points in a plane the third coordinate 0."
        )
    if not positions.is_floating_point():
        raise TensorError(f"pos has dtype {positions.dtype}; it must be floating point: write pos.float().")
    num_nodes = positions.shape[0]
    ptr = graph_pointers(data)
    batch = batch_from_ptr(ptr, num_nodes)
    cell, pbc = _get(data, "cell"), _get(data, "pbc")
    cell = None if cell is None else cell.reshape(-1, 3, 3)
    pbc = None if pbc is None else pbc.reshape(-1, 3)

    edge_attr = None
    if k is not None:
        check_open(pbc, f"but the {k} nearest neighbours are {_ONLY_OPEN}")
        edges = nearest_edges(positions, ptr, k)
    elif _get(data, "edge_index") is not None and (cutoff is None or _same_cutoff(data, cutoff)):
        edges, edge_attr = _data_edges(data, num_nodes)
        if edges.shifts is not None and cell is None:
            raise TensorError("edge_shifts are given without a cell: add cell [G, 3, 3], or leave both out.")
    elif cutoff is not None:
        edges = radius_edges(positions, ptr, cutoff, cell, pbc)
    else:
        check_open(pbc, f"but the complete graph is {_ONLY_OPEN}")
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
        degree=edges.row_pointers.diff().to(positions.dtype),
        batch=batch,
        ptr=ptr,
        num_graphs=ptr.shape[0] - 1,
        positions=positions,
        edge_attr=edge_attr,
        cutoff=cutoff,
        lmax=lmax,
        numbers=_get(data, "z"),
        total_charge=_get(data, "total_charge"),
        cell=cell,
        pbc=pbc,
    )


def with_frames(graph: Graph, lmax: int, detach: bool = False) -> Graph:
    """Return the graph with the rotation matrices of its edges, computed once and shared by all layers.

    Args:
        graph: graph whose edges define the frames.
        lmax: highest degree.
        detach: treat the frames as constants in derivatives, as some published codes do; gradients are then not those
            of the computed function.

    Raises:
        InputError: lmax is negative or larger than ``geoeq.geometry.rotations.MAX_DEGREE``.
    """
    with torch.autocast(graph.vectors.device.type, enabled=False):
        frames = wigner_blocks(graph.vectors.detach() if detach else graph.vectors, lmax)
    return replace(graph, frames=frames)


def edge_frames(graph: Graph, lmax: int) -> tuple[Tensor, ...]:
    """Return the Wigner matrices of the rotations that take edges to the y axis, computing them if the graph has none.

    Shapes:
        Returns [E, 2l + 1, 2l + 1] for l = 0 to lmax.
    """
    if graph.frames is None or len(graph.frames) <= lmax:
        graph = with_frames(graph, lmax)
    return (graph.frames or ())[: lmax + 1]


def displace(graph: Graph, shift: Tensor) -> Graph:
    """Return the graph with the same edges and displaced nodes; vectors, lengths and harmonics are recomputed.

    Each edge keeps its periodic image, whatever its new length. Derivatives flow through all results.

    Shapes:
        shift: [N, 3] Å, displacement of each node.
    """
    vectors = graph.vectors + shift.index_select(0, graph.sender) - shift.index_select(0, graph.receiver)
    lengths = edge_lengths(vectors)
    return replace(
        graph,
        vectors=vectors,
        lengths=lengths,
        harmonics=harmonics(vectors, lengths, graph.lmax),
        positions=graph.positions + shift,
    )


def in_dtype(data: Any, dtype: torch.dtype) -> Any:
    """Return the same structures (a Data or Batch) with their floating-point tensors converted to a dtype."""
    if torch.compiler.is_compiling():  # torch.compile cannot trace a copy of PyG's storage
        converted = Data()
        for key in data.keys():  # noqa: SIM118
            converted[key] = data[key]
    else:
        converted = copy.copy(data)
    for key in data.keys():  # noqa: SIM118
        value = data[key]
        if isinstance(value, Tensor) and value.is_floating_point():
            converted[key] = value.to(dtype)
    return converted


def _get(data: Any, name: str) -> Any:
    return getattr(data, name, None)


def _same_cutoff(data: Any, cutoff: float) -> bool:
    edge_cutoff = _get(data, "edge_cutoff")
    if edge_cutoff is None:
        return False
    return torch.compiler.is_compiling() or bool((edge_cutoff == cutoff).all())


def _data_edges(data: Any, num_nodes: int) -> tuple[Edges, Tensor | None]:
    """Return the edges of the data, sorted, and their attributes in the same order."""
    edge_index, shifts, edge_attr = data.edge_index, _get(data, "edge_shifts"), _get(data, "edge_attr")
    _check_edges(edge_index, shifts, edge_attr)
    if edge_attr is not None and edge_attr.dim() == 1:
        edge_attr = edge_attr.unsqueeze(1)  # [E, 1]
    sender, receiver = edge_index
    if _get(data, "edge_cutoff") is None:
        tracing = torch.compiler.is_compiling()
        if not tracing:
            _check_range(edge_index, num_nodes)
        if tracing or not bool((receiver.diff() >= 0).all()):
            edges, order = sort_edges(edge_index, num_nodes, shifts)
            return edges, None if edge_attr is None else edge_attr.index_select(0, order)
    return Edges(sender, receiver, shifts, row_pointers(receiver, num_nodes)), edge_attr


def _check_edges(edge_index: Tensor, shifts: Tensor | None, edge_attr: Tensor | None) -> None:
    if edge_index.dim() != 2 or edge_index.shape[0] != 2 or edge_index.dtype != torch.int64:
        raise TensorError(
            f"edge_index has shape {list(edge_index.shape)} and dtype {edge_index.dtype}: "
            "it must be [2, E], senders over receivers, of torch.int64."
        )
    num_edges = edge_index.shape[1]
    if shifts is not None and shifts.shape != (num_edges, 3):
        raise TensorError(f"edge_shifts has shape {list(shifts.shape)}; for these edges it must be [{num_edges}, 3].")
    if edge_attr is not None and (edge_attr.dim() > 2 or edge_attr.shape[:1] != (num_edges,)):
        raise TensorError(f"edge_attr has shape {list(edge_attr.shape)}; for these edges it must be [{num_edges}, A].")


def _check_range(edge_index: Tensor, num_nodes: int) -> None:
    outside = ((edge_index < 0) | (edge_index >= num_nodes)).any(0)
    if bool(outside.any()):
        edge = int(outside.nonzero()[0, 0])
        raise TensorError(
            f"Edge {edge} of edge_index is {edge_index[:, edge].tolist()}, "
            f"but nodes are numbered from 0 to {num_nodes - 1}."
        )
