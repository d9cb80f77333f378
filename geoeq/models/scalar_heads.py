"""Heads for invariants: one number a graph, one number or several an atom."""

from __future__ import annotations

from typing import Literal

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import InputError
from geoeq.fields import NUM_ELEMENTS, field
from geoeq.graph import Graph
from geoeq.models.head import Head, checked_name, two_layers
from geoeq.models.references import fit_references

__all__ = ["GraphScalar", "NodeFeatures", "NodeScalar"]


class GraphScalar(Head):
    """A number for each graph: the sum or mean over atoms of a network of their scalars.

    ``out = Σ_atoms (reference[z] + scale · f(x))`` for a sum and ``shift + scale · mean f(x)`` for a mean.
    References, shift and scale are fitted to the training set and stored.

    Args:
        name: a graph-level scalar of ``geoeq.fields``.
        reduce: "sum" or "mean"; by default a sum for what grows with the number of atoms.
        after_pooling: apply a second network to the pooled features, as EGNN does on QM9; a sum is
            then no longer extensive.

    Shapes:
        Returns [G].
    """

    references: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, reduce: Literal["sum", "mean"] | None = None, after_pooling: bool = False) -> None:
        super().__init__()
        if reduce not in (None, "sum", "mean"):
            raise InputError(f"reduce must be 'sum' or 'mean', not {reduce!r}.")
        self.name = checked_name(name, "graph", "0e")
        self.names = (name,)
        self.reduce = reduce or ("sum" if field(name).extensive else "mean")
        self.after_pooling = after_pooling
        self.register_buffer("references", torch.zeros(NUM_ELEMENTS))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def make(self, irreps: o3.Irreps) -> None:
        self.network = two_layers(self.width, self.width if self.after_pooling else 1)
        self.pooled = two_layers(self.width, 1) if self.after_pooling else None

    def fit(self, data: Data) -> None:
        fitted = fit_references(data, self.name, per_element=field(self.name).extensive)
        self.references.copy_(fitted.references)
        self.shift.copy_(fitted.shift)
        spread = fitted.spread / fitted.mean_atoms**0.5 if self.reduce == "sum" else fitted.spread
        self.scale.copy_(torch.as_tensor(spread))

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        pool = kernels.segment_sum if self.reduce == "sum" else kernels.segment_mean
        value = pool(self.network(self.scalars(x)), graph.batch, graph.num_graphs)  # [G, 1 or C]
        if self.pooled is not None:
            value = self.pooled(value)
        value = self.scale * value.squeeze(-1) + self.shift  # [G]
        if graph.numbers is not None:
            reference = kernels.gather(self.references, graph.numbers)  # [N]
            value = value + kernels.segment_sum(reference, graph.batch, graph.num_graphs)
        return {self.name: value}


class NodeScalar(Head):
    """A number for each atom, such as its charge.

    Args:
        name: a node-level scalar of ``geoeq.fields``.

    Shapes:
        Returns [N].
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = checked_name(name, "node", "0e")
        self.names = (name,)

    def make(self, irreps: o3.Irreps) -> None:
        self.network = two_layers(self.width, 1)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        return {self.name: self.network(self.scalars(x)).squeeze(-1)}


class NodeFeatures(Head):
    """Invariant features of each node, by one linear map.

    Args:
        width_out: number of features.
        name: a node-level scalar of ``geoeq.fields``.

    Shapes:
        Returns [N, width_out].
    """

    def __init__(self, width_out: int, name: str = "features") -> None:
        super().__init__()
        self.name = checked_name(name, "node", "0e")
        self.names = (name,)
        self.width_out = width_out

    def make(self, irreps: o3.Irreps) -> None:
        self.linear = nn.Linear(self.width, self.width_out)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        return {self.name: self.linear(self.scalars(x))}
