"""Arrays that hold the rows of many structures one after the other, and PyG batches of some of these structures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch

__all__ = ["Array", "Ranges", "make_batch", "to_tensor"]

Array = NDArray[Any]

#: Copying an empty batch takes a fraction of the time in which PyG creates the class of a new one.
_EMPTY = Batch()


class Ranges(NamedTuple):
    """The rows of some structures.

    Attributes:
        bounds: first row of each structure and one past its last.
        pointers: [G + 1], row pointers of the selected rows.
    """

    bounds: list[tuple[int, int]]
    pointers: NDArray[np.int64]

    @classmethod
    def of(cls, indices: NDArray[np.int64], ptr: Array) -> Ranges:
        """Return the rows of the structures ``indices`` [G], given the row pointers ``ptr`` of all structures."""
        starts, ends = ptr[indices], ptr[indices + 1]
        pointers = np.zeros(len(indices) + 1, dtype=np.int64)
        np.cumsum(ends - starts, out=pointers[1:])
        return cls(list(zip(starts.tolist(), ends.tolist())), pointers)

    def take(self, array: Array) -> Array:
        """Copy these rows of ``array``, range by range, which is faster than an index per row."""
        return np.concatenate([array[start:end] for start, end in self.bounds])


def to_tensor(array: Array, dtype: torch.dtype) -> Tensor:
    """Convert real numbers to ``dtype``, booleans to bool, and all other numbers to int64."""
    tensor = torch.from_numpy(array)
    if array.dtype.kind == "f":
        return tensor.to(dtype)
    return tensor if array.dtype.kind == "b" else tensor.to(torch.int64)


def make_batch(
    nodes: Mapping[str, Tensor],
    graphs: Mapping[str, Tensor],
    ptr: Tensor,
    edges: Mapping[str, Tensor] | None = None,
    edge_ptr: Tensor | None = None,
) -> Batch:
    """Build a PyG batch of G graphs directly, without a Data object per graph; PyG can split it again.

    Args:
        nodes: attributes with one row per node, [N, ..].
        graphs: attributes with one row per graph, [G, ..].
        ptr: [G + 1], row pointers of the nodes.
        edges: attributes with one row per edge, [E, ..], and ``edge_index`` [2, E].
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
    # PyG splits a batch by these three attributes, which its own from_data_list sets.
    zeros = torch.zeros(num_graphs, dtype=torch.int64)
    batch._num_graphs = num_graphs
    batch._slice_dict = slices
    batch._inc_dict = dict.fromkeys(slices, zeros) | {"edge_index": ptr[:-1]}
    return batch
