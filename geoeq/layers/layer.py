"""The contracts Layer, Rowwise and RadialFunction, and helpers of many layers: input checks and EdgeLinear."""

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

__all__ = ["EdgeLinear", "Group", "Layer", "RadialFunction", "Rowwise", "WithExample", "check_width", "edge_attributes"]

#: The symmetry group of a layer or model. "E(3)": rotations, reflections and translations; "SE(3)": no reflections;
#: "T(3)": only translations.
Group = Literal["E(3)", "SE(3)", "T(3)"]


class WithExample(ABC):
    """A class with a small instance for tests and documentation."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """Return a small instance for tests and documentation."""


class Layer(nn.Module, WithExample):
    """A map from node features and a graph to node features.

    Attributes:
        irreps_in: irreps of the input features, in e3nn's layout.
        irreps_out: irreps of the output features.
        group: symmetry group; with "SE(3)" the parities of the irreps have no meaning.
    """

    irreps_in: o3.Irreps
    irreps_out: o3.Irreps
    group: Group = "E(3)"

    @abstractmethod
    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """Map features [N, irreps_in.dim] to [N, irreps_out.dim]."""


class Rowwise(nn.Module, WithExample):
    """A map that acts on each row of features separately: linear maps, gates, normalizations, dropout.

    Attributes:
        irreps_in, irreps_out, group: as for ``Layer``.
    """

    irreps_in: o3.Irreps
    irreps_out: o3.Irreps
    group: Group = "E(3)"

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map features [N, irreps_in.dim] of nodes or edges to [N, irreps_out.dim]."""


class RadialFunction(nn.Module, WithExample):
    """A function of the distance only.

    Attributes:
        width: number of values per distance.
    """

    width: int

    @abstractmethod
    def forward(self, lengths: Tensor) -> Tensor:
        """Map distances [E] in Å to [E, width]."""


def check_width(x: Tensor, width: int, layer: str) -> None:
    """Check the number of columns of node features.

    Raises:
        TensorError: the number of columns is not ``width``.
    """
    if x.shape[-1] != width:
        raise TensorError(f"{layer}: x has {x.shape[-1]} columns; expected {width}.")


def edge_attributes(graph: Graph, width: int, layer: str) -> Tensor:
    """Return the edge attributes that a layer needs, [E, width].

    Raises:
        TensorError: the graph has no edge attributes, or not ``width`` of them.
    """
    count = 0 if graph.edge_attr is None else graph.edge_attr.shape[-1]
    if graph.edge_attr is None or count != width:
        raise TensorError(f"{layer} needs {width} edge attributes (graph.edge_attr); the graph has {count or 'none'}.")
    return graph.edge_attr


class EdgeLinear(nn.Module):
    """``W [x_i, x_j, e_ij] + b``, without building the concatenation.

    ``W_i x_i`` and ``W_j x_j`` are computed once per node and gathered, which takes N x 2C x D instead of E x 2C x D
    multiplications.

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
        bound = 1 / math.sqrt(self.weight.shape[1])  # the initialization of nn.Linear
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor, edges: Tensor, graph: Graph) -> Tensor:
        from_receiver, from_sender = self.project_nodes(x)
        from_receiver = kernels.gather(from_receiver, graph.receiver)
        return self.add_edges(from_receiver, kernels.gather(from_sender, graph.sender), edges)

    def project_nodes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``W_i x`` and ``W_j x + b`` of all nodes, [N, D] each."""
        to_receiver, to_sender = self.weight[:, : self.width], self.weight[:, self.width : 2 * self.width]
        return functional.linear(x, to_receiver), functional.linear(x, to_sender, self.bias)

    def add_edges(self, from_receiver: Tensor, from_sender: Tensor, edges: Tensor) -> Tensor:
        """Return the result [E, D] from the gathered rows of ``project_nodes``, [E, D] each, and edges [E, A]."""
        return from_receiver + from_sender + functional.linear(edges, self.weight[:, 2 * self.width :])
