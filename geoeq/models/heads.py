"""Heads: node features to named outputs in the units of ``geoeq.fields``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from e3nn import o3
from torch import Tensor, nn
from torch_geometric.data import Data

from geoeq import kernels
from geoeq.errors import FieldError, InputError, TensorError
from geoeq.fields import field
from geoeq.graph import Graph
from geoeq.neighbors import edge_lengths as safe_norm
from geoeq.models.config import Configurable
from geoeq.models.references import fit_references

__all__ = [
    "Dipole",
    "GraphScalar",
    "Head",
    "NodeFeatures",
    "NodeScalar",
    "NodeVector",
    "Positions",
    "default_head",
]

NUM_ELEMENTS = 119


class Head(Configurable, nn.Module, ABC):
    """``(x, graph) -> dict``. It learns the width of its input when a model binds it.

    Attributes:
        names: the outputs it gives, each in ``geoeq.fields``.
    """

    names: tuple[str, ...]

    def bind(self, irreps: o3.Irreps) -> None:
        """Make the parameters for features of these irreps: scalars (0e) first, vectors (1o) after them."""
        self.width = irreps.count("0e")
        self.num_vectors = irreps.count("1o")
        self.make(irreps)

    @abstractmethod
    def make(self, irreps: o3.Irreps) -> None:
        """Make the parameters."""

    def fit(self, data: Data) -> None:
        """Take references, shift and scale from the training set; nothing where a head has none."""

    @abstractmethod
    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        """Node features [N, irreps.dim] to outputs by name."""

    def scalars(self, x: Tensor) -> Tensor:
        """The invariant part of the features, [N, C]."""
        return x[:, : self.width]

    def vectors(self, x: Tensor) -> Tensor:
        """The vector part of the features, [N, V, 3]."""
        return x[:, self.width : self.width + 3 * self.num_vectors].unflatten(-1, (self.num_vectors, 3))


def _network(width: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width_out))


def _checked(name: str, level: str, irreps: str) -> str:
    known = field(name)
    if (known.level, known.irreps) != (level, irreps):
        raise FieldError(
            f"'{name}' is a {known.level} quantity with irreps {known.irreps}; this head gives {level} {irreps}. "
            f"Use {type(default_head(name)).__name__}."
        )
    return name


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

    def __init__(
        self, name: str, reduce: Literal["sum", "mean"] | None = None, after_pooling: bool = False
    ) -> None:
        super().__init__()
        if reduce not in (None, "sum", "mean"):
            raise InputError(f"reduce must be 'sum' or 'mean', not {reduce!r}.")
        self.name = _checked(name, "graph", "0e")
        self.names = (name,)
        self.reduce = reduce or ("sum" if field(name).extensive else "mean")
        self.after_pooling = after_pooling
        self.register_buffer("references", torch.zeros(NUM_ELEMENTS))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def make(self, irreps: o3.Irreps) -> None:
        self.network = _network(self.width, self.width if self.after_pooling else 1)
        self.pooled = _network(self.width, 1) if self.after_pooling else None

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
        self.name = _checked(name, "node", "0e")
        self.names = (name,)

    def make(self, irreps: o3.Irreps) -> None:
        self.network = _network(self.width, 1)

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
        self.name = _checked(name, "node", "0e")
        self.names = (name,)
        self.width_out = width_out

    def make(self, irreps: o3.Irreps) -> None:
        self.linear = nn.Linear(self.width, self.width_out)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        return {self.name: self.linear(self.scalars(x))}


class NodeVector(Head):
    """A vector for each node: its vector channels, each weighed by a network of its scalars.

    Args:
        name: a node-level vector of ``geoeq.fields``.

    Shapes:
        Returns [N, 3].

    Raises:
        InputError: the features have no vector channel.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = _checked(name, "node", "1o")
        self.names = (name,)

    def make(self, irreps: o3.Irreps) -> None:
        _needs_vectors(self, irreps)
        self.network = _network(self.width, self.num_vectors)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        weights = self.network(self.scalars(x)).unsqueeze(-1)  # [N, V, 1]
        return {self.name: (weights * self.vectors(x)).sum(1)}


class Positions(Head):
    """Predicted positions: the input positions moved by the first vector channel.

    Args:
        name: a node-level vector of ``geoeq.fields``.

    Shapes:
        Returns [N, 3] Å (or the unit of a dimensionless data set).

    Raises:
        InputError: the features have no vector channel.
    """

    def __init__(self, name: str = "positions") -> None:
        super().__init__()
        self.name = _checked(name, "node", "1o")
        self.names = (name,)

    def make(self, irreps: o3.Irreps) -> None:
        _needs_vectors(self, irreps)

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        return {self.name: graph.positions + self.vectors(x)[:, 0]}


class Dipole(Head):
    """The dipole moment of a neutral graph, from atomic charges and, where there are any, atomic dipoles.

    ``μ = Σ_i q_i (r_i - r̄) + Σ_i Σ_v w_iv(x_i) x_iv``, the charges less their mean over the graph, so that
    it does not depend on the origin.

    Args:
        name: "dipole" for the vector, "dipole_norm" for its length.

    Shapes:
        Returns [G, 3] e·Å for the vector, [G] for the length.

    Source:
        Schütt et al., ICML 2021, arXiv:2102.03150, eq. 9 (charges and atomic dipoles). Differs: charges are
        made neutral.
    """

    scale: Tensor

    def __init__(self, name: str = "dipole") -> None:
        super().__init__()
        if name not in ("dipole", "dipole_norm"):
            raise FieldError(f"Dipole gives 'dipole' or 'dipole_norm', not '{name}'.")
        self.name = name
        self.names = (name,)
        self.register_buffer("scale", torch.ones(()))

    def make(self, irreps: o3.Irreps) -> None:
        self.network = _network(self.width, 1 + self.num_vectors)

    def fit(self, data: Data) -> None:
        target = getattr(data, self.name).reshape(-1, 3 if self.name == "dipole" else 1).double()
        spread = target.square().mean().sqrt()
        self.scale.copy_(spread if spread > 0 else torch.ones_like(spread))

    def forward(self, x: Tensor, graph: Graph) -> dict[str, Tensor]:
        out = self.network(self.scalars(x))  # [N, 1 + V]
        charge = out[:, :1] - self._mean(out[:, :1], graph)
        moments = charge * (graph.positions - self._mean(graph.positions, graph))  # [N, 3]
        moments = moments + (out[:, 1:, None] * self.vectors(x)).sum(1)
        dipole = self.scale * kernels.segment_sum(moments, graph.batch, graph.num_graphs)  # [G, 3]
        return {self.name: dipole if self.name == "dipole" else safe_norm(dipole)}

    def _mean(self, values: Tensor, graph: Graph) -> Tensor:
        return kernels.gather(kernels.segment_mean(values, graph.batch, graph.num_graphs), graph.batch)


def _needs_vectors(head: Head, irreps: o3.Irreps) -> None:
    if head.num_vectors == 0:
        raise InputError(f"{type(head).__name__} needs a vector channel (1o); the network gives {irreps}.")


def default_head(name: str) -> Head:
    """The head that one would choose for the field ``name``.

    Raises:
        FieldError: the field is unknown, or no head gives it.
    """
    known = field(name)
    if name in ("dipole", "dipole_norm"):
        return Dipole(name)
    if name == "positions":
        return Positions()
    heads: dict[tuple[str, str], type[GraphScalar | NodeScalar | NodeVector]] = {
        ("graph", "0e"): GraphScalar,
        ("node", "0e"): NodeScalar,
        ("node", "1o"): NodeVector,
    }
    if (known.level, known.irreps) not in heads:
        raise FieldError(f"No head gives '{name}' ({known.level}, {known.irreps}).")
    return heads[known.level, known.irreps](name)
