"""The contracts of this folder: Layer, Rowwise and RadialFunction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Self

from e3nn import o3
from torch import Tensor, nn

from geoeq.graph import Graph

__all__ = ["Group", "Layer", "RadialFunction", "Rowwise"]

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
