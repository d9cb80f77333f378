"""Row pointers: the first node of each graph, and the first edge of each node."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["batch_from_ptr", "graph_pointers", "row_pointers", "sorted_by"]


def row_pointers(index: Tensor, num_rows: int) -> Tensor:
    """Return the first position of each row, [num_rows + 1], in a sorted index [E] of rows."""
    rows = torch.arange(num_rows + 1, device=index.device)
    return torch.searchsorted(index.contiguous(), rows)


def sorted_by(index: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Return the permutation [E] that sorts an index [E] of rows, and each row's first position, [num_rows + 1]."""
    order = torch.argsort(index, stable=True)
    return order, row_pointers(index.index_select(0, order), num_rows)


def batch_from_ptr(ptr: Tensor, num_nodes: int) -> Tensor:
    """Return the graph of each node, [N], from the first node of each graph, [G + 1]."""
    nodes = torch.arange(num_nodes, device=ptr.device)
    return torch.searchsorted(ptr[1:].contiguous(), nodes, right=True)


def graph_pointers(data: Any) -> Tensor:
    """Return the first node of each graph of ``data``, [G + 1]: its ``ptr``, else from ``batch``, else of one graph."""
    positions: Tensor = data.pos
    num_nodes = positions.shape[0]
    ptr: Tensor | None = getattr(data, "ptr", None)
    if ptr is not None:
        return ptr
    batch: Tensor | None = getattr(data, "batch", None)
    if batch is None:
        return torch.arange(2, device=positions.device) * num_nodes
    return row_pointers(batch, int(batch.max()) + 1 if num_nodes else 0)
