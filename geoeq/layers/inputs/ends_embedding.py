"""The elements at both ends of an edge as inputs of its networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geoeq import kernels
from geoeq.errors import TensorError
from geoeq.fields import NUM_ELEMENTS
from geoeq.graph import Graph

__all__ = ["EndsEmbedding", "end_numbers"]


def end_numbers(graph: Graph) -> tuple[Tensor, Tensor]:
    """Atomic numbers at the senders and the receivers, [E] each.

    Raises:
        TensorError: the graph has none.
    """
    if graph.numbers is None:
        raise TensorError("The elements at both ends of the edges are needed, and the graph has no numbers (data.z).")
    return kernels.gather(graph.numbers, graph.sender), kernels.gather(graph.numbers, graph.receiver)


class EndsEmbedding(nn.Module):
    """Rows of two tables, for the elements of sender and receiver, side by side.

    Args:
        width: C of a row.

    Shapes:
        Returns [E, 2 C].

    Raises:
        TensorError: the graph has no atomic numbers.

    Source:
        Liao & Smidt, ICLR 2023, arXiv:2206.11990.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.sender, self.receiver = nn.Embedding(NUM_ELEMENTS, width), nn.Embedding(NUM_ELEMENTS, width)
        for table in (self.sender, self.receiver):
            nn.init.uniform_(table.weight, -0.001, 0.001)

    def forward(self, graph: Graph) -> Tensor:
        sender, receiver = end_numbers(graph)
        return torch.cat([self.sender(sender), self.receiver(receiver)], dim=-1)
