"""PyG batches straight from flat arrays, without a Data object for each graph on the way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

from geoeq.data.records import Array
from geoeq.neighbors import radius_edges

__all__ = ["make_batch", "radius_edges_of", "rows_of"]


def rows_of(indices: NDArray[np.int64], ptr: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that belong to the graphs ``indices``, one graph after the other, and their own row pointers.

    Shapes:
        indices: [G]. ptr: [all graphs + 1]. Returns rows [N] and pointers [G + 1].
    """
    start = ptr[indices]
    counts = ptr[indices + 1] - start  # [G]
    pointers = np.zeros(len(indices) + 1, dtype=np.int64)
    np.cumsum(counts, out=pointers[1:])
    rows = np.arange(pointers[-1]) + np.repeat(start - pointers[:-1], counts)  # [N]
    return rows, pointers


def radius_edges_of(
    positions: Tensor, ptr: Tensor, cutoff: float, cell: Tensor | None, pbc: Tensor | None
) -> dict[str, Tensor]:
    """The edges shorter than ``cutoff``: ``edge_index`` [2, E] and, if periodic, ``edge_shifts`` [E, 3]."""
    edges = radius_edges(positions, ptr, cutoff, cell, pbc)
    found = {"edge_index": torch.stack([edges.sender, edges.receiver])}
    if edges.shifts is not None:
        found["edge_shifts"] = edges.shifts
    return found


def make_batch(
    graphs: Mapping[str, Tensor],
    nodes: Mapping[str, Tensor],
    edges: Mapping[str, Tensor],
    ptr: Tensor,
) -> Batch:
    """A batch of G graphs that can also be taken apart again.

    Args:
        graphs: attributes of which each graph has one row, [G, ..].
        nodes: attributes of which each node has one row, [N, ..].
        edges: attributes of which each edge has one row, [E, ..], and ``edge_index`` [2, E], sorted by receiver.
        ptr: [G + 1], row pointers of the nodes.
    """
    batch = Batch()
    num_graphs = len(ptr) - 1
    each = torch.arange(num_graphs + 1)
    slices = dict.fromkeys(nodes, ptr)
    if edges:
        receiver = edges["edge_index"][1].contiguous()
        slices |= dict.fromkeys(edges, torch.searchsorted(receiver, ptr))  # [G + 1]
    slices |= dict.fromkeys(graphs, each)
    for name, value in {**nodes, **edges, **graphs}.items():
        batch[name] = value
    counts = ptr.diff()
    batch.batch = torch.repeat_interleave(torch.arange(num_graphs), counts, output_size=int(ptr[-1]))
    batch.ptr = ptr
    if not nodes:
        batch.num_nodes = int(ptr[-1])
    # The three attributes by which PyG's own from_data_list lets a batch be taken apart.
    nothing = torch.zeros(num_graphs, dtype=torch.int64)
    batch._num_graphs = num_graphs
    batch._slice_dict = slices
    batch._inc_dict = {name: ptr[:-1] if name == "edge_index" else nothing for name in slices}
    return batch
