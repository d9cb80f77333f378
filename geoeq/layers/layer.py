"""The contracts of this folder: Layer and RadialFunction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from e3nn import o3
from torch import Tensor, nn

from geoeq.graph import Graph

__all__ = ["Layer", "RadialFunction"]


class Layer(nn.Module, ABC):
    """Node features and a graph to node features.

    Attributes:
        irreps_in: how the input turns, in e3nn's layout.
        irreps_out: how the output turns.
    """

    irreps_in: o3.Irreps
    irreps_out: o3.Irreps

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A small instance, for tests and documentation."""

    @abstractmethod
    def forward(self, x: Tensor, graph: Graph) -> Tensor:
        """[N, irreps_in.dim] to [N, irreps_out.dim]."""


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
