"""The invariants of edges that a layer is given with the graph."""

from __future__ import annotations

from torch import Tensor

from geoeq.errors import TensorError
from geoeq.graph import Graph

__all__ = ["edge_attributes"]


def edge_attributes(graph: Graph, width: int, layer: str) -> Tensor:
    """The invariants of the edges that a layer needs, [E, width].

    Raises:
        TensorError: the graph has none, or of another width.
    """
    if graph.edge_attr is None or graph.edge_attr.shape[-1] != width:
        found = "none" if graph.edge_attr is None else str(graph.edge_attr.shape[-1])
        raise TensorError(f"{layer}: {width} edge attributes are needed, the graph has {found}.")
    return graph.edge_attr
