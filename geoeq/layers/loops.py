"""Edges from nodes to themselves."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from geoeq.geometry.harmonics import harmonics
from geoeq.geometry.neighbors import edge_lengths
from geoeq.graph import Graph

__all__ = ["with_loops"]


def with_loops(graph: Graph) -> Graph:
    """The graph with an edge from each node to itself, of length zero, after the other edges into the node.

    Edges stay sorted by receiver. Attributes of loops are zero; frames of edges are not kept.
    """
    nodes = torch.arange(graph.num_nodes, device=graph.sender.device)
    edges = torch.arange(len(graph.sender), device=graph.sender.device) + graph.receiver  # where each edge goes
    loops = graph.row_pointers[1:] + nodes

    def joined(values: Tensor, own: Tensor) -> Tensor:
        whole = values.new_zeros(len(edges) + len(loops), *values.shape[1:])
        return whole.index_copy(0, edges, values).index_copy(0, loops, own)

    zeros = graph.vectors.new_zeros(len(nodes), 3)
    lengths = edge_lengths(zeros)
    attributes = graph.edge_attr
    if attributes is not None:
        attributes = joined(attributes, attributes.new_zeros(len(nodes), attributes.shape[1]))
    return replace(
        graph,
        sender=joined(graph.sender, nodes),
        receiver=joined(graph.receiver, nodes),
        row_pointers=graph.row_pointers + torch.arange(len(graph.row_pointers), device=nodes.device),
        vectors=joined(graph.vectors, zeros),
        lengths=joined(graph.lengths, lengths),
        harmonics=joined(graph.harmonics, harmonics(zeros, lengths, graph.lmax)),
        degree=graph.degree + 1,
        edge_attr=attributes,
        frames=None,
    )
