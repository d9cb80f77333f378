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
        to_receiver, to_sender, to_edge = self.weight.split(
            [self.width, self.width, self.weight.shape[1] - 2 * self.width], dim=1
        )
        received = kernels.gather(functional.linear(x, to_receiver), graph.receiver)  # [E, D]
        sent = kernels.gather(functional.linear(x, to_sender, self.bias), graph.sender)  # [E, D]
        return received + sent + functional.linear(edges, to_edge)
