"""The first linear map of an edge network, applied per node and gathered."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from geoeq import kernels
from geoeq.graph import Graph

__all__ = ["EdgeLinear"]


class EdgeLinear(nn.Module):
    """``W [x_i, x_j, e_ij] + b`` without ever making the concatenation.

    The map is linear, so ``W_i x_i`` and ``W_j x_j`` are computed for each node and gathered:
    N x 2C x D multiplications in place of E x 2C x D.

    Args:
        width: number C of node channels.
        edge_width: number A of edge channels; may be 0.
        width_out: number D of output channels.

    Shapes:
        x: [N, C]; edges: [E, A]. Returns [E, D]. ``weight`` is [D, 2C + A], in the order receiver, sender, edge.
    """

    def __init__(self, width: int, edge_width: int, width_out: int) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.empty(width_out, 2 * width + edge_width))
        self.bias = nn.Parameter(torch.empty(width_out))
        bound = 1 / math.sqrt(self.weight.shape[1])  # as nn.Linear starts
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, edges: Tensor, graph: Graph) -> Tensor:
        received, sent = self.of_nodes(x)
        return self.joined(kernels.gather(received, graph.receiver), kernels.gather(sent, graph.sender), edges)

    def of_nodes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What nodes add to the edges that they receive and send, [N, D] each."""
        to_receiver, to_sender = self.weight[:, : self.width], self.weight[:, self.width : 2 * self.width]
        return functional.linear(x, to_receiver), functional.linear(x, to_sender, self.bias)

    def joined(self, received: Tensor, sent: Tensor, edges: Tensor) -> Tensor:
        """The map of edges, from the rows of their ends in ``of_nodes``, each [E, D]."""
        return received + sent + functional.linear(edges, self.weight[:, 2 * self.width :])
