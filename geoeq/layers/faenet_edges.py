"""The numbers that FAENet's edges are: vectors as they are, and distances."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from geoeq.graph import Graph
from geoeq.layers.layer import RadialFunction

__all__ = ["FAENetEdges"]


class FAENetEdges(nn.Module):
    """``SiLU(W_1 r_ij | W_2 g(|r_ij|))``, r_ij the vector of the edge *as it is*: no symmetry but that of translations.

    Args:
        width: number F of results.
        basis: g.
        second: a second linear map, with SiLU.

    Shapes:
        Returns [E, F].
    """

    def __init__(self, width: int, basis: RadialFunction, second: bool = False) -> None:
        super().__init__()
        self.basis = basis
        self.vector = nn.Linear(3, width // 2)
        self.distance = nn.Linear(basis.width, width - width // 2)
        self.second = nn.Linear(width, width) if second else None

    def forward(self, graph: Graph) -> Tensor:
        both = [self.vector(graph.vectors), self.distance(self.basis(graph.lengths))]
        edges = silu(torch.cat(both, dim=-1))
        return edges if self.second is None else silu(self.second(edges))
