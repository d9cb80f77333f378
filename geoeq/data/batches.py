"""PyG batches straight from flat arrays, without a Data object for each graph on the way."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import Batch

__all__ = ["make_batch"]

#: A copy of it takes a fraction of the time in which PyG makes the class of a new batch.
_EMPTY = Batch()


def make_batch(
    nodes: Mapping[str, Tensor],
    graphs: Mapping[str, Tensor],
    ptr: Tensor,
    edges: Mapping[str, Tensor] | None = None,
    edge_ptr: Tensor | None = None,
) -> Batch:
    """A batch of G graphs that can also be taken apart again.

    Args:
        nodes: attributes of which each node has one row, [N, ..].
        graphs: attributes of which each graph has one row, [G, ..].
        ptr: [G + 1], row pointers of the nodes.
        edges: attributes of which each edge has one row, [E, ..], and ``edge_index`` [2, E].
        edge_ptr: [G + 1], row pointers of the edges.
    """
    batch = copy.copy(_EMPTY)
    num_graphs = len(ptr) - 1
    slices = dict.fromkeys(nodes, ptr)
    if edges and edge_ptr is not None:
        slices |= dict.fromkeys(edges, edge_ptr)
    slices |= dict.fromkeys(graphs, torch.arange(num_graphs + 1))
    for name, value in {**nodes, **(edges or {}), **graphs}.items():
        batch[name] = value
    batch.batch = torch.repeat_interleave(torch.arange(num_graphs), ptr.diff(), output_size=len(nodes["pos"]))
    batch.ptr = ptr
    # The three attributes by which PyG's own from_data_list lets a batch be taken apart.
    nothing = torch.zeros(num_graphs, dtype=torch.int64)
    batch._num_graphs = num_graphs
    batch._slice_dict = slices
    batch._inc_dict = dict.fromkeys(slices, nothing) | {"edge_index": ptr[:-1]}
    return batch
