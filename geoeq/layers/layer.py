"""The contracts of this folder: Layer, Rowwise and RadialFunction."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal, Self

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn import functional

from geoeq import kernels
from geoeq.errors import TensorError
from geoeq.graph import Graph

__all__ = ["EdgeLinear", "Group", "Layer", "RadialFunction", "Rowwise", "edge_attributes"]


#: What turns a layer's output as it turns its input: rotations, reflections and translations, "SE(3)" without
#: reflections, "T(3)" translations alone.
Group = Literal["E(3)", "SE(3)", "T(3)"]


class Layer(nn.Module, ABC):
    """Node features and a graph to node features.

    Attributes:
        irreps_in: how the input turns, in e3nn's layout.
        irreps_out: how the output turns.
        group: "SE(3)" where reflections are not respected; the parities of the irreps then mean nothing.
    """

    irreps_in: o3.Irreps
    irreps_out: o3.Irreps
    group: Group = "E(3)"

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, for tests and documentation."""

    @abstractmethod
    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """[N, irreps_in.dim] to [N, irreps_out.dim]."""


class Rowwise(nn.Module, ABC):
    """Features to features, each row by itself: linear maps, gates, normalisations, dropout.

    Attributes:
        irreps_in, irreps_out, group: as for ``Layer``.
    """

    irreps_in: o3.Irreps
    irreps_out: o3.Irreps
    group: Group = "E(3)"

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, for tests and documentation."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """[N, irreps_in.dim] to [N, irreps_out.dim], of nodes or edges."""


class RadialFunction(nn.Module, ABC):
    """A function of the distance alone.

    Attributes:
        width: how many numbers it gives for a distance.
    """

    width: int

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, for tests and documentation."""

    @abstractmethod
    def forward(self, lengths: Tensor) -> Tensor:
        """[E] in Å to [E, width]."""


def edge_attributes(graph: Graph, width: int, layer: str) -> Tensor:
    """The invariants of the edges that a layer needs, [E, width].

    Raises:
        TensorError: the graph has none, or of another width.
    """
    if graph.edge_attr is None or graph.edge_attr.shape[-1] != width:
        found = "none" if graph.edge_attr is None else str(graph.edge_attr.shape[-1])
        raise TensorError(f"{layer}: {width} edge attributes are needed, the graph has {found}.")
    return graph.edge_attr


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
